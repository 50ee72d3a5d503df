"""Files in other layouts: an official one as ours, ours as an official one, and encoders as transformers keeps them.

Nothing is lost on the way: what no model here has a place for is kept under `unplaced.`, and how a file spelled its names and which
buffers it left out is noted in the header, so that official -> ours -> official gives the same names, shapes and bits.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor
from transformers import BertModel, CLIPVisionModel, PreTrainedModel, RobertaModel

from common.errors import UserError
from common.settings import Settings
from models.checkpoints.adapter import Adapter, HeadCounts
from models.checkpoints.differences import size_differences
from models.checkpoints.keys import KeyTable, convert_back
from models.checkpoints.load import DERIVED, Named, name_tensors
from models.checkpoints.reading import Contents
from models.checkpoints.registry import ADAPTERS, UNPLACED, adapter_named, detect
from models.config import ClipVitConfig, ModelConfig
from models.text.bert import bert_config
from models.text.roberta import roberta_config
from models.vision.clip_vit import clip_config


@dataclass(frozen=True)
class Converted:
    """Tensors in the wanted layout."""

    tensors: dict[str, Tensor]
    header: dict[str, str] = field(default_factory=dict)
    """Of our files: family, config of the model, settings that the official code saved, spellings, and what the file left out."""
    config: dict[str, Any] = field(default_factory=dict)
    """Of official files: the settings that the official code saved."""
    report: list[str] = field(default_factory=list)


def official_to_ours(contents: Contents, source: str, counts: HeadCounts | None = None) -> Converted:
    """An official file as ours.

    Raises:
        UserError: the file is of no known official format.
    """
    named = name_tensors(contents, source, counts)
    if named.config is None:
        raise UserError(f"{source}: is a file of this project already.")
    adapter = adapter_named(named.family)
    regenerated = _written(named.conversion.tensors, adapter, named.config)
    tensors = {name: tensor.contiguous() for name, tensor in named.conversion.tensors.items()}
    kept = {name: contents.tensors[name] for name in named.conversion.ignored if not _equal(contents.tensors[name], regenerated.get(name))}
    table = adapter.table(named.config)
    spellings = {ours: theirs for ours, theirs in named.conversion.sources.items() if table.to_official(ours) != theirs}
    omitted = sorted(regenerated.keys() - contents.tensors.keys() - _canonical(tensors, table))
    header = {
        "format": "pt",
        "family": named.family,
        "config": named.config.model_dump_json(),
        "official_config": json.dumps(contents.config),
        "spellings": json.dumps(spellings),
        "omitted": json.dumps(omitted),
    }
    return Converted(tensors | {UNPLACED + name: value.contiguous() for name, value in kept.items()}, header, report=_report(named, kept))


def ours_to_official(contents: Contents, config: Settings, source: str, family: str | None = None) -> Converted:
    """One of our files as the official code writes its own, second copies and buffers included.

    Args:
        contents: of our file.
        config: of the model in it.
        source: the file, for messages.
        family: name of the official format; None: the one that the file came from, else the first that can hold the model.

    Raises:
        UserError: no official format can hold the model, or not this one.
    """
    placed = {name: tensor for name, tensor in contents.tensors.items() if not name.startswith(UNPLACED) and not name.endswith(DERIVED)}
    adapter = _official_format(placed, config, source, family or contents.metadata.get("family"))
    written = _written(placed, adapter, config)
    spellings: dict[str, str] = json.loads(contents.metadata.get("spellings", "{}"))
    table = adapter.table(config)
    for ours, theirs in spellings.items():
        if ours in placed:
            written[theirs] = written.pop(str(table.to_official(ours)))
    for name in json.loads(contents.metadata.get("omitted", "[]")):
        written.pop(name, None)
    kept = {name.removeprefix(UNPLACED): value for name, value in contents.tensors.items() if name.startswith(UNPLACED)}
    report = [
        f"{source}: {len(contents.tensors)} tensors written as {len(written | kept)} of {adapter.name}: {len(placed)} of the model, "
        f"{len(kept)} kept from the official file, {len((written | kept).keys()) - len(placed) - len(kept)} second copies and buffers"
    ]
    return Converted(written | kept, config=json.loads(contents.metadata.get("official_config", "{}")), report=report)


def encoders_to_transformers(tensors: Mapping[str, Tensor], config: Settings, out: Path) -> list[str]:
    """Write the encoders that transformers has, as folders that its `from_pretrained` loads: `text`, and `vision` of CLIP.

    Args:
        tensors: of a whole model by our names.
        config: of the model.
        out: a folder, made where absent.

    Returns:
        What was written and what cannot be.

    Raises:
        UserError: the model has no such encoder.
    """
    if not isinstance(config, ModelConfig):
        raise UserError("MVP's encoders share one embedding table and read phrases and tags: transformers has no such model.")
    roberta = config.text.kind == "roberta"
    text = RobertaModel(roberta_config(config.text), add_pooling_layer=False) if roberta else BertModel(bert_config(config.text), False)
    lines = [_save(text, tensors, "text.backbone.", out / "text")]
    if isinstance(config.vision, ClipVitConfig):
        lines.append(_save(CLIPVisionModel(clip_config(config.vision)), tensors, "vision.backbone.", out / "vision"))
        lines.append("vision: transformers normalises the class token alone at the end; apply post_layernorm to all tokens to get ours.")
    else:
        lines.append(f"vision: not written; transformers has no {config.vision.kind} with the token order and global token of this model.")
    lines.append("fusion encoder and heads: not written; transformers has no such model. No tokenizer is written.")
    return lines


def _written(tensors: Mapping[str, Tensor], adapter: Adapter[Any], config: Settings) -> dict[str, Tensor]:
    """Our tensors under official names, with second copies and buffers, as the official code spells them."""
    try:
        official = convert_back(tensors, adapter.table(config))
    except KeyError as error:
        raise UserError(f"{error.args[0]} has no name in the format {adapter.name}") from error
    return official | adapter.buffers(config)


def _canonical(tensors: Mapping[str, Tensor], table: KeyTable) -> set[str]:
    """Official names of the tensors themselves, without copies and buffers."""
    return {name for ours in tensors if (name := table.to_official(ours)) is not None}


def _official_format(tensors: Mapping[str, Tensor], config: Settings, source: str, family: str | None) -> Adapter[Any]:
    """The format to write, which must be able to hold the model: what it writes must read as the same model."""
    problems = []
    for adapter in [adapter_named(family)] if family else ADAPTERS:
        problem = _misfit(tensors, config, adapter)
        if problem is None:
            return adapter
        problems.append(f"{adapter.name}: {problem}")
    raise UserError(f"{source}: no official format can hold this model. {'; '.join(problems)}.")


def _misfit(tensors: Mapping[str, Tensor], config: Settings, adapter: Adapter[Any]) -> str | None:
    """Why a format cannot hold a model, or None."""
    try:
        names = convert_back({name: torch.empty(tensor.shape, device="meta") for name, tensor in tensors.items()}, adapter.table(config))
        shapes = {name: tensor.shape for name, tensor in names.items()}
        read = detect(shapes)
        if read is not adapter:
            return f"would read as {read.name}"
        found = adapter.config(shapes, HeadCounts())
    except KeyError as error:
        return f"has no place for {error.args[0]}"
    except (UserError, ValidationError, AttributeError) as error:
        return str(error).split("\n", 1)[0].rstrip(".")
    return next(iter(size_differences(found, config, tensors)), None)


def _save(model: PreTrainedModel, tensors: Mapping[str, Tensor], prefix: str, folder: Path) -> str:
    """Fill a model of transformers, whose names ours are under a prefix, and write it."""
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    inner = getattr(model, "vision_model", model)  # some releases wrap CLIP's tower once more
    missing, unexpected = inner.load_state_dict(own, strict=False)
    missing = [name for name in missing if not name.endswith(DERIVED)]
    unexpected = [name for name in unexpected if not name.endswith(DERIVED)]
    if missing or unexpected:
        raise UserError(f"{prefix}{(missing or unexpected)[0]}: the file's encoder is not transformers' {type(model).__name__}.")
    model.save_pretrained(folder)
    return f"{folder.name}: {len(own)} tensors as {type(model).__name__} in {folder}"


def _equal(tensor: Tensor, other: Tensor | None) -> bool:
    return other is not None and tensor.dtype == other.dtype and torch.equal(tensor, other)


def _report(named: Named, kept: Mapping[str, Tensor]) -> list[str]:
    conversion = named.conversion
    count = len(conversion.tensors) + len(conversion.ignored)
    transposed = len(named.transposed & conversion.tensors.keys())
    lines = [
        f"{named.source}: {count} tensors: {len(conversion.tensors)} renamed to ours ({transposed} of them transposed), "
        f"{len(conversion.ignored) - len(kept)} copies and buffers left out, {len(kept)} without a place here kept for the way back"
    ]
    groups: dict[str, int] = {}
    for name in kept:
        group = ".".join(name.split(".")[:2])
        groups[group] = groups.get(group, 0) + 1
    return lines + [f"  kept: {group}.* ({number})" for group, number in groups.items()]
