"""Where a new model's weights start from: timm and transformers names, or local files."""

import logging
import pickle
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from timm.models.beit import checkpoint_filter_fn
from torch import Tensor, nn
from transformers import BertForMaskedLM

from common.errors import UserError
from models.vision.beit2 import Beit2
from models.vlm import VisionLanguageModel

logger = logging.getLogger(__name__)

BERT_TO_FUSION = {
    "attention.self": "self_attention",
    "attention.output.dense": "self_attention.output",
    "attention.output.LayerNorm": "self_attention_norm",
    "intermediate.dense": "mlp_in",
    "output.dense": "mlp_out",
    "output.LayerNorm": "mlp_norm",
}
BERT_TO_HEAD = {"transform.dense": "dense", "transform.LayerNorm": "norm"}


def load_initial_weights(model: VisionLanguageModel) -> frozenset[str]:
    """Fill the model from the places that its configuration names.

    Args:
        model: freshly built; changed in place.

    Returns:
        Names of the parameters that were filled.

    Raises:
        UserError: when a file is missing, unsafe or does not fit.
    """
    vision, text = model.config.vision, model.config.text
    filled: set[str] = set()
    if vision.weights:
        filled |= _fill(model, _vision_weights(model, vision.weights), f"model.vision.weights {vision.weights}")
    if text.weights:
        filled |= _fill(model, _text_weights(model, text.weights), f"model.text.weights {text.weights}")
    return frozenset(filled)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors file or of a torch file, which may hold nothing but tensors and plain containers."""
    if not path.is_file():
        raise UserError(f"{path}: no such file.")
    if path.suffix == ".safetensors":
        return load_file(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n", 1)[0]
        raise UserError(f"{path} holds more than tensors and is refused, because loading it could run code: {reason}") from error
    for key in ("model", "module"):
        if isinstance(state, dict) and key in state:
            state = state[key]
    return state


def _vision_weights(model: VisionLanguageModel, source: str) -> dict[str, Tensor]:
    assert isinstance(model.vision, Beit2), "other encoders follow"
    backbone = model.vision.backbone
    if Path(source).exists():
        state = read_state_dict(Path(source))
    else:
        try:
            state = dict(timm.create_model(source, pretrained=True, num_classes=0).state_dict())
        except (RuntimeError, OSError) as error:
            raise UserError(f"model.vision.weights: {source} is neither a local file nor a model that timm can load ({error}).") from error
    state = {key: value for key, value in state.items() if not key.startswith(("head.", "lm_head.", "mask_token", "rel_pos_bias."))} | {
        f"blocks.{index}.attn.relative_position_bias_table": table.clone()
        for key, table in state.items()
        if key == "rel_pos_bias.relative_position_bias_table"  # one shared table in self-supervised checkpoints
        for index in range(len(backbone.blocks))
    }
    if "fc_norm.weight" not in state and "norm.weight" in state:  # before fine-tuning the norm had another name
        state |= {f"fc_norm.{part}": state.pop(f"norm.{part}") for part in ("weight", "bias")}
    return {f"vision.backbone.{key}": value for key, value in checkpoint_filter_fn(state, backbone).items()}


def _text_weights(model: VisionLanguageModel, source: str) -> dict[str, Tensor]:
    try:
        state: Mapping[str, Tensor] = BertForMaskedLM.from_pretrained(source).state_dict()
    except (OSError, ValueError) as error:
        reason = str(error).split("\n", 1)[0]
        raise UserError(f"model.text.weights: {source} is neither a local folder nor a model transformers can load ({reason}).") from error
    text_layers, copies = model.config.text.layers, model.config.fusion.copy_text_layers or []
    named: dict[str, Tensor] = {}
    for key, value in state.items():
        parts = key.split(".")
        if key.startswith("bert.encoder.layer."):
            layer, rest = int(parts[3]), ".".join(parts[4:])
            if layer < text_layers:
                named[key.replace("bert.", "text.backbone.", 1)] = value
            for index in (index for index, copied in enumerate(copies) if copied == layer):
                named[f"fusion.layers.{index}.{_rename(rest, BERT_TO_FUSION)}"] = value
        elif key.startswith("bert.embeddings.") and not key.endswith(("position_ids", "token_type_ids")):
            named[key.replace("bert.", "text.backbone.", 1)] = value
        elif key.startswith("cls.predictions.") and ".decoder." not in key and hasattr(model, "mlm_head"):
            named["mlm_head." + _rename(key.removeprefix("cls.predictions."), BERT_TO_HEAD)] = value
    return named


def _rename(key: str, table: Mapping[str, str]) -> str:
    for old, new in table.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def _fill(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> set[str]:
    own = dict(model.named_parameters())
    used = {key: value for key, value in weights.items() if key in own}
    for key, value in used.items():
        if value.shape != own[key].shape:
            raise UserError(f"{source}: {key} has shape {list(value.shape)}, the model needs {list(own[key].shape)}.")
    if not used:
        raise UserError(f"{source}: not one of its {len(weights)} tensors belongs to this model.")
    with torch.no_grad():
        for key, value in used.items():
            own[key].copy_(value)
    logger.info("%s: filled %d tensors, %d had no place", source, len(used), len(weights) - len(used))
    return set(used)
