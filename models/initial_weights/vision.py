"""Initial weights of the vision encoders: Microsoft's BEiT-2 and Swin files, CLIP in transformers' layout, timm and transformers names."""

from collections.abc import Mapping
from pathlib import Path

import timm
from torch import Tensor
from transformers import CLIPVisionModel

from common.errors import UserError
from models.checkpoints.keys import KeyTable, convert
from models.checkpoints.reading import read_state_dict
from models.checkpoints.resize import fit_positions
from models.checkpoints.vision_keys import DERIVED, OURS, swin_prefixes
from models.config import Beit2Config, ClipVitConfig, SwinConfig, VisionConfig

SHARED_TABLE = "rel_pos_bias.relative_position_bias_table"
CLIP_TOWER = "vision_model."
HEADS = ("head.", "lm_head.")


def vision_weights(config: VisionConfig, source: str) -> dict[str, Tensor]:
    """Read an encoder's weights.

    Args:
        config: of the model that wants them.
        source: a local file (or folder of transformers), or a name that timm, for CLIP transformers, can load.

    Returns:
        Tensors under our names, position tables resized to the model's resolution.

    Raises:
        UserError: the source is missing, unsafe or unknown.
    """
    path = Path(source)
    if path.is_file():
        state = read_state_dict(path)
    elif isinstance(config, ClipVitConfig):
        state = _from_transformers(source)
    else:
        state = _from_timm(source)
    match config:
        case Beit2Config():
            state = _beit2(state, config.depth)
        case SwinConfig():
            state = _swin(state, config)
        case ClipVitConfig():
            state = _clip(state)
    kept = {f"{OURS}{name}": tensor for name, tensor in state.items() if not name.startswith(HEADS) and not name.endswith(DERIVED)}
    return fit_positions(kept, config)


def _from_timm(source: str) -> dict[str, Tensor]:
    try:
        return dict(timm.create_model(source, pretrained=True, num_classes=0).state_dict())
    except (RuntimeError, OSError) as error:
        raise UserError(f"model.vision.weights: {source} is neither a local file nor a model that timm can load ({error}).") from error


def _from_transformers(source: str) -> dict[str, Tensor]:
    try:
        return dict(CLIPVisionModel.from_pretrained(source).state_dict())
    except (OSError, ValueError) as error:
        reason = str(error).split("\n", 1)[0]
        raise UserError(f"model.vision.weights: {source} is neither local nor a model that transformers can load ({reason}).") from error


def _beit2(state: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Microsoft's files: self-supervised ones share one position table and call the final norm `norm` (which the official code drops)."""
    named = {name: tensor for name, tensor in state.items() if name != SHARED_TABLE}
    if SHARED_TABLE in state:
        named |= {f"blocks.{block}.attn.relative_position_bias_table": state[SHARED_TABLE] for block in range(depth)}
    if "fc_norm.weight" not in named and "norm.weight" in named:
        named |= {f"fc_norm.{part}": named.pop(f"norm.{part}") for part in ("weight", "bias")}
    return named


def _swin(state: Mapping[str, Tensor], config: SwinConfig) -> dict[str, Tensor]:
    """Microsoft's files merge patches at the end of a stage, timm's at the start of the next."""
    if "layers.0.downsample.reduction.weight" not in state:
        return dict(state)
    return convert(state, KeyTable(swin_prefixes(config.depths, "", ""), derived=DERIVED)).tensors


def _clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CLIP files of transformers, with or without the text tower."""
    if not any(name.startswith(CLIP_TOWER) for name in state):
        return dict(state)
    return {name.removeprefix(CLIP_TOWER): tensor for name, tensor in state.items() if name.startswith(CLIP_TOWER)}
