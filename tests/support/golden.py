"""Recorded tensors of the official X2-VLM code, and its key names in ours.

The tensors are beside the project, not in it: tests skip where they are absent.
"""

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from models.config import Beit2Config, FusionConfig, ModelConfig, TextConfig

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden"

RENAMES = [
    (r"^vision_encoder\.", "vision.backbone."),
    (r"^absolute_frame_pos_embed$", "frames.positions"),
    (r"^text_encoder\.bert\.embeddings\.", "text.backbone.embeddings."),
    (r"^text_encoder\.cls\.predictions\.transform\.LayerNorm\.", "mlm_head.norm."),
    (r"^text_encoder\.cls\.predictions\.transform\.dense\.", "mlm_head.dense."),
    (r"^text_encoder\.cls\.predictions\.bias$", "mlm_head.bias"),
    (r"^bbox_head\.", "box_head."),
    (r"^temp$", "temperature"),
    (r"\.attention\.self\.", ".self_attention."),
    (r"\.attention\.output\.dense\.", ".self_attention.output."),
    (r"\.attention\.output\.LayerNorm\.", ".self_attention_norm."),
    (r"\.crossattention\.self\.", ".cross_attention."),
    (r"\.crossattention\.output\.dense\.", ".cross_attention.output."),
    (r"\.crossattention\.output\.LayerNorm\.", ".cross_attention_norm."),
    (r"\.intermediate\.dense\.", ".mlp_in."),
    (r"\.output\.dense\.", ".mlp_out."),
    (r"\.output\.LayerNorm\.", ".mlp_norm."),
]


def our_key(key: str, text_layers: int) -> str | None:
    """Our name of an official key; None for derived buffers and tied copies."""
    if key.endswith(("position_ids", "relative_position_index")) or ".cls.predictions.decoder." in key:
        return None
    layer = re.match(r"text_encoder\.bert\.encoder\.layer\.(\d+)\.", key)
    if layer and int(layer[1]) < text_layers:
        return key.replace("text_encoder.bert.", "text.backbone.")
    if layer:
        key = key.replace(layer[0], f"fusion.layers.{int(layer[1]) - text_layers}.")
    for pattern, replacement in RENAMES[:8] if not layer else RENAMES[8:]:
        key = re.sub(pattern, replacement, key)
    return key


@dataclass
class Case:
    """One recorded case."""

    config: ModelConfig
    weights: dict[str, Tensor]
    inputs: dict[str, dict[str, Tensor]]
    outputs: dict[str, dict[str, dict[str, Tensor]]]
    """dtype name -> scenario -> output name -> tensor."""
    gradients: dict[str, dict[str, dict[str, dict[str, float]]]]
    all_boxes: bool


def _scenarios(flat: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    nested: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, value in flat.items():
        scenario, key = name.split("/", 1)
        nested[scenario][key] = value
    return dict(nested)


def load_case(name: str) -> Case:
    """Read a case, or skip the test."""
    folder = GOLDEN / name
    if not folder.is_dir():
        pytest.skip("the recorded tensors of the official code are not beside this checkout")
    recorded = json.loads((folder / "config.json").read_text())
    base, vision, text = recorded["config"]["base"], recorded["config"]["dims"]["vision"], recorded["config"]["dims"]["text"]
    text_layers = base["text_fusion_start_at"]
    inputs = load_file(folder / "inputs.safetensors")
    for alias, name_ in recorded.get("input_aliases", {}).items():
        inputs[alias] = inputs[name_]
    config = ModelConfig(
        vision=Beit2Config(
            image_size=base["image_res"],
            patch_size=base["patch_size"],
            width=vision["embed_dim"],
            depth=vision["depth"],
            heads=vision["num_heads"],
            layer_scale=vision["init_values"],
            frames=base.get("frame_len") if base.get("add_frame_pos") else None,
        ),
        text=TextConfig(
            width=text["hidden_size"],
            layers=text_layers,
            heads=text["num_attention_heads"],
            intermediate=text["intermediate_size"],
            vocab_size=text["vocab_size"],
            max_positions=text["max_position_embeddings"],
            layer_norm_eps=text["layer_norm_eps"],
        ),
        fusion=FusionConfig(layers=base["text_num_hidden_layers"] - text_layers),
        projection_dim=base["embed_dim"],
        temperature=base["temp"],
    )
    named = {our_key(key, text_layers): value for key, value in load_file(folder / "weights.safetensors").items()}
    return Case(
        config,
        {key: value for key, value in named.items() if key is not None},
        _scenarios(inputs),
        {
            "float32": _scenarios(load_file(folder / "outputs.safetensors")),
            "float64": _scenarios(load_file(folder / "outputs_f64.safetensors")),
        },
        json.loads((folder / "grads.json").read_text()),
        bool(base.get("calc_image_bbox_loss")),
    )
