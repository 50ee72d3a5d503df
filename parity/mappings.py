"""Which tensor of a pre-training checkpoint each tensor of a fine-tuned model starts from, officially and here.

Officially the two models have different classes and names, and a loader for each pair. Here both have one name for one thing, so that the
adapter must give a fine-tuned tensor the name that it gives its source.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch

from models.checkpoints.bert_keys import CAPTIONER, DECODERS, TEXT_SPELLINGS, first_fusion_layer, stack_depth
from models.checkpoints.cclm import SplitX2vlm, without_text_encoder
from models.checkpoints.joint import joint_table
from models.checkpoints.keys import KeyTable
from models.checkpoints.vision_keys import vision_kind
from models.checkpoints.xfm import Xfm
from models.config import (
    Beit2Config,
    ClipVitConfig,
    DecoderConfig,
    EmbeddingsFrom,
    FusionConfig,
    ModelConfig,
    SwinConfig,
    TextConfig,
    VisionConfig,
)
from models.decoder import decoder_sources
from models.tasks.nlvr import single_layer
from parity.compare import Finding

Table = Callable[[ModelConfig], KeyTable]


def _pairs_table(config: ModelConfig) -> KeyTable:
    """Of a model whose fusion layers come in pairs: both of a pair under the name of the layer that they start from."""
    table = joint_table(config)
    return replace(table, prefixes=tuple((official, single_layer(ours)) for official, ours in table.prefixes))


TABLES: dict[str, Table] = {"XVLM": joint_table, "XFM": Xfm().table, "CrossViewLM": SplitX2vlm().table}
"""Classes of checkpoints."""
TARGETS: dict[str, Table] = {
    "XVLMForRetrieval": joint_table,
    "XVLMForGrounding": joint_table,
    "XVLMForNLVR": joint_table,
    "nlvr": _pairs_table,
    "retrieval": joint_table,
    "bbox": joint_table,
    "XFMForRetrieval": Xfm().table,
    "XFMForNLVR": Xfm().table,
    "CrossViewLM": SplitX2vlm().table,
    "XVLMPlusForRetrieval": SplitX2vlm().table,
    "XVLMPlusForMARVL": SplitX2vlm().table,
    "XVLMForVQA": joint_table,
    "vqa": joint_table,
    "XVLMForMLMCaptioning": joint_table,
    "captioning": joint_table,
    "XFMForVQA": Xfm().table,
    "XVLMPlusForVQA": SplitX2vlm().table,
}
"""Classes that start from one and whose task is here."""
EMBEDDINGS_FROM: dict[str, EmbeddingsFrom] = {"XFMForVQA": "output", "XVLMPlusForVQA": "nothing"}
"""Classes whose decoder does not begin with the text encoder's embeddings."""
TEXT_FILE = "TEXTFILE:"
"""How a recording marks names of a pretrained text model that replaces the checkpoint's."""
FUSION_STACKS = ("cross_encoder.", "cross_encoder.bert.", "fusion_encoder.roberta.", "fusion_encoder.")
RESIZED, FRESH = "<changed", "<unchanged"
"""How a recording begins to say that a tensor was resized from that of the same name, or left as initialised."""


def check_mappings(recorded: Mapping[str, Mapping[str, Any]]) -> tuple[list[Finding], list[str]]:
    """Compare the recorded pairs of classes; returns also the pairs that are not covered."""
    findings, uncovered = [], []
    for pair, entry in recorded.items():
        classes = re.search(r"(\w+)->(\w+)", pair)
        if classes is None or classes[1] not in TABLES or classes[2] not in TARGETS:
            uncovered.append(pair)
            continue
        sources = {name: _sources(name, value) for name, value in entry["map"].items()}
        config = _with_decoder(config_of_names(sources), sources, classes[2])
        table, starts = TARGETS[classes[2]](config), decoder_sources(config) if config.decoder is not None else {}
        origin = _origins({source for names in sources.values() for source in names}, TABLES[classes[1]])
        wrong = [name for name, names in sources.items() if not _starts_from(_start(table.to_ours(name), starts), names, origin)]
        problem = f"{len(wrong)} of {len(sources)} tensors start from elsewhere, first {wrong[0]}" if wrong else ""
        findings.append(Finding("checkpoints", pair, "", 0.0, 0.0, 0.0, problem))
    return findings, uncovered


def _start(place: str | None, starts: Mapping[str, str]) -> str | None:
    """The name here of what a tensor starts from: of a decoder another one; its own where nothing in a checkpoint is for it."""
    return starts.get(place, place) if place is not None else None


def _with_decoder(config: ModelConfig, names: Iterable[str], target: str) -> ModelConfig:
    """The model with the decoder that official names tell of."""
    present = set(names)
    stack = next((stack for stack in DECODERS if stack_depth(present, stack)), None)
    if stack is None or not any(stack_depth(present, spelling) for spelling in TEXT_SPELLINGS):  # without a text encoder it is the whole
        return config
    positions = "roberta" if "roberta" in stack else "bert"
    layers, origin = stack_depth(present, stack), EMBEDDINGS_FROM.get(target, "text")
    text = config.text.model_copy(update={"width": config.vision.width, "heads": 1})  # recorded models have images as wide as texts
    return config.model_copy(update={"text": text, "decoder": DecoderConfig(layers=layers, positions=positions, embeddings_from=origin)})


def _sources(name: str, recorded: list[str] | str) -> list[str]:
    """Official names in the checkpoint that a tensor starts from; none where it starts from nothing."""
    if isinstance(recorded, str):
        return [name] if recorded.startswith(RESIZED) else []
    return recorded


def _origins(sources: set[str], table: Table) -> dict[str, str | None]:
    """The name here of each tensor that is read, None where it has no place."""
    texts = {name for name in sources if name.startswith(TEXT_FILE)}
    names = table(config_of_names(sources - texts))
    ours = {name: names.to_ours(name) for name in sources - texts}
    if texts:  # another text model was put in: what belonged to the old one is not read
        kept = without_text_encoder({place: torch.empty(0) for place in ours.values() if place is not None})
        ours = {name: place if place in kept else None for name, place in ours.items()}
    return ours | {name: re.sub(rf"^{TEXT_FILE}\w+\.", "text.backbone.", name) for name in texts}


def _starts_from(place: str | None, sources: list[str], origins: Mapping[str, str | None]) -> bool:
    """Whether a tensor of this name here starts from one of these, or, without any, from nothing that is read."""
    if not sources:
        return place is None or place not in origins.values()
    return place in {origins[source] for source in sources}


def config_of_names(names: Iterable[str]) -> ModelConfig:
    """A model with the layers that official names tell of; its sizes mean nothing."""
    present = set(names)
    prefix = next((spelling for spelling in (*TEXT_SPELLINGS, CAPTIONER) if stack_depth(present, spelling)), "text_encoder.")
    own = next((stack for stack in FUSION_STACKS if stack_depth(present, stack)), None)
    depth = stack_depth(present, prefix)
    text = depth if own else first_fusion_layer(present, prefix)
    fusion = stack_depth(present, own) if own else depth - text
    return ModelConfig(vision=_vision(present), text=TextConfig(layers=text), fusion=FusionConfig(layers=fusion))


def _vision(names: set[str]) -> VisionConfig:
    match vision_kind(names):
        case "swin":
            stages = _count(names, r"vision_encoder\.layers\.(\d+)\.")
            depths = tuple(_count(names, rf"vision_encoder\.layers\.{stage}\.blocks\.(\d+)\.") for stage in range(stages))
            return SwinConfig(depths=depths, heads=(1,) * stages, embed_dim=1, width=2 ** (stages - 1))
        case "clip_vit":
            depth = _count(names, r"vision_encoder\.encoder\.layers\.(\d+)\.")
            return ClipVitConfig(depth=depth, local_depth=depth)
        case _:
            return Beit2Config(depth=_count(names, r"vision_encoder\.blocks\.(\d+)\."))


def _count(names: set[str], pattern: str) -> int:
    return len({match[1] for name in names if (match := re.match(pattern, name))})
