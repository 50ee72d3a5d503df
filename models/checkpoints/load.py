"""Filling a model from a weights file of any known format.

What fits is decided from names and shapes, before a model is touched: `fit` serves loading and checking alike.
"""

import logging
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from common.errors import UserError
from common.settings import Settings
from models.adopting import Adopting
from models.checkpoints.adapter import HeadCounts
from models.checkpoints.coverage import Coverage, Found, compare
from models.checkpoints.differences import computing_differences, size_differences
from models.checkpoints.keys import Conversion, convert
from models.checkpoints.reading import Contents, read_checkpoint, read_shapes
from models.checkpoints.registry import OURS, UNPLACED, detect
from models.checkpoints.resize import BACKBONE, FRAMES, TABLE, fit_positions, resize_frames
from models.config import VisionSettings

logger = logging.getLogger(__name__)

DERIVED = ("position_ids", "token_type_ids", "relative_position_index", "attn_mask")
"""Endings of our names of buffers that the configuration gives; no file needs them."""
POSITIONS = (TABLE, "backbone.pos_embed", "position_embedding.weight", FRAMES)
"""Endings of our names of what is resized with the resolution."""
KINDS = {"blocks.": "beit2", "layers.": "swin", "encoder.layers.": "clip_vit"}
"""How names of a vision encoder begin here, to its kind."""


@dataclass(frozen=True)
class Fit:
    """A file's tensors as a model takes them, and the account of it."""

    tensors: dict[str, Tensor]
    """By the model's names, of its shapes."""
    coverage: Coverage


@dataclass(frozen=True)
class Named:
    """A file's tensors under our names, and the model that they were made for."""

    source: str
    """The file and its format, for messages."""
    family: str
    conversion: Conversion
    transposed: frozenset[str]
    config: Settings | None
    """None of this project's own files."""


def load_checkpoint(model: nn.Module, path: Path | str, allow_missing: Sequence[str] = ()) -> Coverage:
    """Fill a model from a weights file.

    Args:
        model: changed in place. One with a vision encoder gets position tables resized where the file has another resolution.
        path: of a known official format or our own, see `registry.detect`.
        allow_missing: fnmatch patterns of tensors of the model that may stay as initialised.

    Returns:
        What was loaded, also written to the log.

    Raises:
        UserError: the file cannot be read, has other shapes, or lacks what the model needs; nothing is changed then.
    """
    fitted = fit(read_checkpoint(Path(path)), model, str(path), allow_missing)
    model.load_state_dict(fitted.tensors, strict=False)
    report(fitted.coverage)
    return fitted.coverage


def check_checkpoint(model: nn.Module, path: Path | str, allow_missing: Sequence[str] = ()) -> Coverage:
    """What `load_checkpoint` would do, told without reading values; the model may be on the meta device."""
    return fit(read_shapes(Path(path)), model, str(path), allow_missing).coverage


def fit(contents: Contents, model: nn.Module, source: str, allow_missing: Sequence[str]) -> Fit:
    """Bring a file's tensors into a model's names and shapes.

    Args:
        contents: of the file; on the meta device only shapes are compared.
        model: not changed.
        source: the file, for messages.
        allow_missing: see `load_checkpoint`.

    Raises:
        UserError: see `load_checkpoint`.
    """
    return fit_named(name_tensors(contents, source, known=model.state_dict()), model, allow_missing)


def name_tensors(contents: Contents, source: str, counts: HeadCounts | None = None, known: Container[str] = ()) -> Named:
    """Tell a file's format and give its tensors our names.

    Args:
        contents: of the file.
        source: the file, for messages.
        counts: numbers of attention heads where no shape tells them.
        known: names of the model at hand; a file of no known format that has some of them is taken as it is.
    """
    shapes = {name: tensor.shape for name, tensor in contents.tensors.items()}
    try:
        adapter = detect(shapes, source)
    except UserError:
        if not any(name in known for name in shapes):
            raise
        adapter = OURS
    if adapter is OURS:
        kept = {name: tensor for name, tensor in contents.tensors.items() if not name.startswith(UNPLACED)}
        unplaced = dict.fromkeys(contents.tensors.keys() - kept.keys(), "kept for writing the official format")
        return Named(source, adapter.name, Conversion(kept, {name: name for name in kept}, unplaced), frozenset(), None)
    try:
        config = adapter.config(shapes, counts or HeadCounts())
    except KeyError as error:
        raise UserError(f"{source} ({adapter.name}): not whole: it lacks {error.args[0]}.") from error
    except (UserError, ValidationError) as error:
        raise UserError(f"{source} ({adapter.name}): {one_line(error)}") from error
    table = adapter.table(config)
    conversion = convert(contents.tensors, table)
    reasons = {"derived": "follows from the configuration", "unknown": "no model here has such a part"}
    ignored = {name: reasons.get(why, why) for name, why in conversion.ignored.items()}
    for copy, original in table.copies.items():
        if _differ(contents.tensors.get(copy), contents.tensors.get(original)):
            ignored[copy] = f"a copy of {original} in the official model, but with other values here"
            logger.warning("%s: %s should be a copy of %s and is not; the latter is used", source, copy, original)
    return Named(f"{source} ({adapter.name})", adapter.name, replace(conversion, ignored=ignored), table.transposed, config)


def fit_named(named: Named, model: nn.Module, allow_missing: Sequence[str]) -> Fit:
    """As `fit`, of tensors that have our names already."""
    own = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith(DERIVED)}
    mine: Any = getattr(model, "config", None)
    named = replace(named, conversion=_adopted(named.conversion, model))
    _refuse_pairs(named)
    sizes = size_differences(named.config, mine, named.conversion.tensors)
    tensors = _fit_positions(named, mine, own)
    found = {
        name: Found(
            named.conversion.sources[name],
            tensor.shape,
            name in named.transposed,
            original.shape if tensor.shape != (original := named.conversion.tensors[name]).shape else None,
        )
        for name, tensor in tensors.items()
    }
    shapes = {name: tensor.shape for name, tensor in own.items()}
    coverage = compare(named.source, shapes, found, named.conversion.ignored, allow_missing, sizes)
    coverage = replace(coverage, notes=tuple(computing_differences(named.config, mine)))
    return Fit({name: tensors[name] for name in coverage.loaded}, coverage)


def _adopted(conversion: Conversion, model: nn.Module) -> Conversion:
    """A file's tensors under the names of the parts that start from them; unchanged for models that start from the same names."""
    if not isinstance(model, Adopting):
        return conversion
    origins = model.adopt(conversion.tensors)
    left = {conversion.sources[name]: "this model starts without it" for name in conversion.tensors.keys() - set(origins.values())}
    return replace(
        conversion,
        tensors={name: conversion.tensors[origin] for name, origin in origins.items()},
        sources={name: conversion.sources[origin] for name, origin in origins.items()},
        ignored={**conversion.ignored, **left},
    )


def _refuse_pairs(named: Named) -> None:
    """Files of X-VLM and CCLM fine-tuned on pairs of images (NLVR2, MaRVL) have each fusion layer twice, one for each image, which share
    the projections of the image; as one stack they would compute something else."""

    def same(part: str) -> bool:
        first, second = (named.conversion.tensors.get(f"fusion.layers.{layer}.cross_attention.{part}.weight") for layer in (0, 1))
        return first is not None and second is not None and not first.is_meta and torch.equal(first, second)

    if same("key") and same("value") and not same("query"):
        raise UserError(
            f"{named.source}: its fusion layers come in pairs, one layer for each of two images (fine-tuned on NLVR2 or MaRVL). "
            "Only the task nlvr with pair_fusion: alternating takes such weights; start from the pre-training file."
        )


def _fit_positions(named: Named, config: Any, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The file's tensors with position tables of the model's resolution and number of frames."""
    tensors, vision = dict(named.conversion.tensors), getattr(config, "vision", None)
    if not isinstance(vision, VisionSettings):
        return tensors
    kinds = {kind for start, kind in KINDS.items() if any(name.startswith(BACKBONE + start) for name in tensors)}
    if kinds != {getattr(vision, "kind", None)}:
        return tensors  # another encoder: what is missing will be named
    # Without values there is nothing to resample; tables are small, so zeros stand in and the shapes come out right.
    tables = {name: torch.zeros(tensor.shape) if tensor.is_meta else tensor for name, tensor in tensors.items() if name.endswith(POSITIONS)}
    try:
        tensors |= fit_positions(tables, cast(Any, vision))
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{named.source}: its position tables belong to no square grid ({one_line(error)}).") from error
    if FRAMES in tables and FRAMES in own:
        initial = torch.zeros(own[FRAMES].shape) if own[FRAMES].is_meta else own[FRAMES]
        tensors[FRAMES] = resize_frames(tables[FRAMES], initial)
    return tensors


def report(coverage: Coverage) -> None:
    """Write what a load did to the log."""
    logger.info("%s", coverage)
    for note in coverage.notes:
        logger.warning("%s: %s", coverage.source, note)


def _differ(copy: Tensor | None, original: Tensor | None) -> bool:
    """Whether both are there, with values that are not the same."""
    if copy is None or original is None or copy.is_meta:
        return False
    return copy.data_ptr() != original.data_ptr() and not torch.equal(copy, original)


def one_line(error: Exception) -> str:
    """What is wrong, without line breaks."""
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors())
    return str(error).split("\n", 1)[0]
