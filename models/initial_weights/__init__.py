"""Where a new model's weights start from: timm and transformers names, or local files in the layouts they were published in."""

import logging
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from common.errors import UserError
from models.initial_weights.mvp import mvp_text_weights
from models.initial_weights.text import text_weights
from models.initial_weights.tokenizer import tokenizer_weights
from models.initial_weights.vision import vision_weights
from models.mvp.pixels import PixelEncoders
from models.vlm import VisionLanguageModel

__all__ = ["load_initial_weights", "load_text_encoder"]

logger = logging.getLogger(__name__)

NOT_IN_EVERY_FILE = ("vision.backbone.mask_token",)
"""Files of BEiT-2 after fine-tuning have lost it; it then starts fresh."""


def load_initial_weights(model: VisionLanguageModel | PixelEncoders, allow_missing: Sequence[str] = ()) -> frozenset[str]:
    """Fill the encoders, and what the paper copies from them, from the places that the configuration names.

    Args:
        model: freshly built; changed in place.
        allow_missing: fnmatch patterns of the encoders' parameters that may stay as initialised when a source lacks them.

    Returns:
        Names of the parameters that were filled.

    Raises:
        UserError: when a file is missing, unsafe or incomplete, or does not fit.
    """
    vision, text = model.config.vision, model.config.text
    filled: set[str] = set()
    if vision.weights:
        source = f"model.vision.weights {vision.weights}"
        filled |= _fill(model, vision_weights(vision, vision.weights), source)
        _check_whole(model, "vision.", filled, allow_missing, source)
    if text.weights:
        if isinstance(model, PixelEncoders):
            source = f"model.text.weights {text.weights}"
            return frozenset(filled | _fill(model, mvp_text_weights(model, text.weights), source))
        head = "text_mlm_head" if hasattr(model, "text_mlm_head") else "mlm_head"  # X-FM's other head, over fused states, starts random
        filled |= _fill_text(model, text_weights(model.config, text.weights, head), allow_missing)
    if model.visual_tokenizer is not None and model.config.visual_tokenizer is not None:
        source = f"model.visual_tokenizer.weights {model.config.visual_tokenizer.weights}"
        filled |= _fill(model, tokenizer_weights(model.config.visual_tokenizer.weights), source)
        _check_whole(model, "visual_tokenizer.", filled, allow_missing, source)
    return frozenset(filled)


def load_text_encoder(model: VisionLanguageModel, allow_missing: Sequence[str] = ()) -> frozenset[str]:
    """Fill the text encoder alone from `model.text.weights`, which must be set; fusion layers and heads stay as they are.

    Args, returns, errors: see `load_initial_weights`.
    """
    source = model.config.text.weights
    assert source is not None, "whoever asks for them has looked"
    weights = text_weights(model.config, source, "mlm_head")
    own = {name: tensor for name, tensor in weights.items() if name.startswith("text.")}
    return frozenset(_fill_text(model, own, allow_missing))


def _fill_text(model: VisionLanguageModel, weights: Mapping[str, Tensor], allow_missing: Sequence[str]) -> set[str]:
    source = f"model.text.weights {model.config.text.weights}"
    filled = _fill(model, weights, source)
    _check_whole(model, "text.", filled, allow_missing, source)
    return filled


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


def _check_whole(model: nn.Module, prefix: str, filled: set[str], allow_missing: Sequence[str], source: str) -> None:
    """Refuse an encoder that would be partly random: the loss falls all the same, and nobody would notice."""
    needed = [name for name, _ in model.named_parameters() if name.startswith(prefix) and name not in filled]
    lacking = [name for name in needed if not any(fnmatchcase(name, pattern) for pattern in (*NOT_IN_EVERY_FILE, *allow_missing))]
    if lacking:
        raise UserError(
            f"{source} lacks {len(lacking)} tensors of the encoder, first {lacking[0]}. "
            f"To start them fresh set initialize.allow_missing: [{lacking[0]}, ...]"
        )
