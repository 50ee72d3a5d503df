"""Which layers of a pretrained text model a stack starts from: the recorded choice, made by this project's loader."""

import re
import tempfile
from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM

from models.config import FusionConfig, ModelConfig, TextConfig
from models.initial_weights.text import text_weights
from parity.compare import Finding, exactly

LAYER = re.compile(r"encoder\.layer\.(\d+)\.")
KEPT = -1
"""Recorded for what is in no layer."""
PROBE = "attention.self.query.bias"
VOCABULARY, WIDTH, POSITIONS = 8, 2, 4


def is_layer_mapping(name: str) -> bool:
    """Whether a recorded function chooses layers, such as bert12_to_18."""
    return re.fullmatch(r"bert\d+_to_(cross)?\d+", name) is not None


def check_layers(name: str, recorded: Mapping[str, int]) -> list[Finding]:
    """Load a pretrained model whose layers hold their own numbers, with the recorded choice as configuration, and read the numbers.

    Args:
        name: bert<layers of the source>_to_<layers of the stack>, the latter after "cross" for a fusion encoder alone.
        recorded: target names to the number of the source's layer.
    """
    depth, wanted = int(re.findall(r"\d+", name)[0]), int(re.findall(r"\d+", name)[1])
    chosen = {int(match[1]): layer for key, layer in recorded.items() if (match := LAYER.search(key)) and layer != KEPT}
    fusion = wanted if "cross" in name else wanted // 3
    stack = [chosen.get(index, KEPT) for index in range(wanted)]
    text = stack[: wanted - fusion] or [0]
    config = ModelConfig(
        text=TextConfig(
            width=WIDTH, layers=len(text), heads=1, intermediate=WIDTH, vocab_size=VOCABULARY, max_positions=POSITIONS, weight_layers=text
        ),
        fusion=FusionConfig(layers=fusion, copy_text_layers=stack[wanted - fusion :]),
    )
    with tempfile.TemporaryDirectory() as folder:
        _numbered_bert(depth).save_pretrained(folder)
        loaded = text_weights(config, folder, "mlm_head")
    ours = {} if "cross" in name else {index: _number(loaded, f"text.backbone.encoder.layer.{index}.{PROBE}") for index in range(len(text))}
    first = len(ours)
    ours |= {first + index: _number(loaded, f"fusion.layers.{index}.self_attention.query.bias") for index in range(fusion)}
    return [exactly("functions", name, (index, layer), (index, ours.get(index))) for index, layer in chosen.items()]


def _numbered_bert(depth: int) -> BertForMaskedLM:
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=depth,
        num_attention_heads=1,
        intermediate_size=WIDTH,
        max_position_embeddings=POSITIONS,
    )
    model = BertForMaskedLM(config)
    with torch.no_grad():
        for index, layer in enumerate(model.bert.encoder.layer):
            for parameter in layer.parameters():
                parameter.fill_(index)
    return model


def _number(loaded: Mapping[str, Tensor], name: str) -> int | None:
    return int(loaded[name].mean()) if name in loaded else None
