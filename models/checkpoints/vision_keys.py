"""How official files name the tensors of the vision encoders, and which encoder their shapes tell of.

All official repositories keep the encoder under `vision_encoder.`; here it is `vision.backbone.` with the names of timm (BEiT-2, Swin) and
transformers (CLIP). Files that hold an encoder alone are read with an empty prefix.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from timm.models.beit import gen_relative_position_index
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor

from common.errors import UserError
from models.checkpoints.adapter import Shapes
from models.config import Beit2Config, ClipVitConfig, SwinConfig, VisionConfig

OFFICIAL = "vision_encoder."
OURS = "vision.backbone."
FRAMES = "absolute_frame_pos_embed"
DERIVED = ("relative_position_index", "attn_mask", "position_ids")
"""Endings of official names of buffers that follow from the configuration."""
CHANNELS_PER_HEAD = 64
"""Of every published model, where no shape tells."""
TABLE = "attn.relative_position_bias_table"

Kind = Literal["beit2", "swin", "clip_vit"]


def vision_prefixes(config: VisionConfig, official: str = OFFICIAL, ours: str = OURS) -> tuple[tuple[str, str], ...]:
    """(official, ours) beginnings of the names of the encoder of a configuration, as `KeyTable.prefixes` wants them."""
    match config:
        case Beit2Config():
            return beit2_prefixes(official, ours)
        case SwinConfig():
            return swin_prefixes(config.depths, official, ours)
        case ClipVitConfig():
            return clip_prefixes(official, ours)


def beit2_prefixes(official: str = OFFICIAL, ours: str = OURS) -> tuple[tuple[str, str], ...]:
    """BEiT-2: timm kept the official names."""
    return ((official, ours),)


def swin_prefixes(depths: Sequence[int], official: str = OFFICIAL, ours: str = OURS) -> tuple[tuple[str, str], ...]:
    """Swin: the official code merges patches at the end of a stage, timm at the start of the next."""
    merging = tuple((f"{official}layers.{stage}.downsample.", f"{ours}layers.{stage + 1}.downsample.") for stage in range(len(depths) - 1))
    return ((official, ours), *merging)


def clip_prefixes(official: str = OFFICIAL, ours: str = OURS) -> tuple[tuple[str, str], ...]:
    """CLIP-ViT: the official code has no group of embeddings."""
    return (
        (f"{official}class_embedding", f"{ours}embeddings.class_embedding"),
        (f"{official}patch_embed.", f"{ours}embeddings.patch_embedding."),
        (f"{official}pos_embed.", f"{ours}embeddings.position_embedding."),
        (f"{official}pre_layrnorm.", f"{ours}pre_layrnorm."),
        (f"{official}encoder.layers.", f"{ours}encoder.layers."),
        (f"{official}post_layernorm.", f"{ours}post_layernorm."),
    )


def vision_kind(names: Iterable[str], prefix: str = OFFICIAL) -> Kind | None:
    """Which encoder official names tell of, or None."""
    signs: dict[str, Kind] = {
        "blocks.0.attn.qkv.weight": "beit2",
        "layers.0.blocks.0.attn.qkv.weight": "swin",
        "class_embedding": "clip_vit",
    }
    present = set(names)
    return next((kind for sign, kind in signs.items() if prefix + sign in present), None)


def vision_config(shapes: Shapes, heads: int | None = None, prefix: str = OFFICIAL) -> VisionConfig:
    """The encoder of an official file: sizes and resolution from its shapes.

    Args:
        shapes: of the file's tensors by official names.
        heads: of CLIP-ViT, where no shape tells; None for 64 channels a head. The tables of the other encoders tell.
        prefix: before the encoder's names.

    Returns:
        A configuration. What no shape tells (drop path, how many CLIP layers are local) is as published.

    Raises:
        UserError: the file has no such encoder, or not all of it.
    """
    kind = vision_kind(shapes, prefix)
    own = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
    frames = shapes[FRAMES][1] if FRAMES in shapes else None
    match kind:
        case "beit2":
            return _beit2_config(own, frames)
        case "swin":
            return _swin_config(own, frames)
        case "clip_vit":
            return _clip_config(own, heads, frames)
    raise UserError(f"The file holds no vision encoder that is known here (BEiT-2, Swin or CLIP-ViT) under {prefix or 'its names'!r}.")


def _beit2_config(shapes: Shapes, frames: int | None) -> Beit2Config:
    width, _, patch, _ = _shape(shapes, "patch_embed.proj.weight")
    rows, heads = _shape(shapes, f"blocks.0.{TABLE}")
    return Beit2Config(
        image_size=(_root(rows - 3, f"blocks.0.{TABLE}") + 1) // 2 * patch,
        patch_size=patch,
        width=width,
        depth=_count(shapes, "blocks."),
        heads=heads,
        mlp_ratio=_shape(shapes, "blocks.0.mlp.fc1.weight")[0] / width,
        layer_scale=0.1 if "blocks.0.gamma_1" in shapes else 0.0,
        frames=frames,
    )


def _swin_config(shapes: Shapes, frames: int | None) -> SwinConfig:
    embed_dim, _, patch, _ = _shape(shapes, "patch_embed.proj.weight")
    stages = _count(shapes, "layers.")
    depths = tuple(_count(shapes, f"layers.{stage}.blocks.") for stage in range(stages))
    tables = [_shape(shapes, f"layers.{stage}.blocks.0.{TABLE}") for stage in range(stages)]
    windows = [(_root(rows, f"layers.{stage}.blocks.0.{TABLE}") + 1) // 2 for stage, (rows, _) in enumerate(tables)]
    return SwinConfig(
        image_size=_swin_image_size(shapes, patch, windows),
        width=embed_dim * 2 ** (stages - 1),
        patch_size=patch,
        embed_dim=embed_dim,
        depths=depths,
        heads=tuple(heads for _, heads in tables),
        window=max(windows),  # a stage that is not larger than the window has one window of its own size
        mlp_ratio=_shape(shapes, "layers.0.blocks.0.mlp.fc1.weight")[0] / embed_dim,
        frames=frames,
    )


def _swin_image_size(shapes: Shapes, patch: int, windows: Sequence[int]) -> int:
    """Masks of shifted windows tell how many windows a stage has; without them the last stage is one window, as in all published models."""
    for stage, window in enumerate(windows):
        mask = shapes.get(f"layers.{stage}.blocks.1.attn_mask")
        if mask is not None:
            return _root(mask[0], "attn_mask") * window * patch * 2**stage
    return windows[-1] * patch * 2 ** (len(windows) - 1)


def _clip_config(shapes: Shapes, heads: int | None, frames: int | None) -> ClipVitConfig:
    width, _, patch, _ = _shape(shapes, "patch_embed.weight")
    depth = _count(shapes, "encoder.layers.")
    return ClipVitConfig(
        image_size=_root(_shape(shapes, "pos_embed.weight")[0] - 1, "pos_embed.weight") * patch,
        patch_size=patch,
        width=width,
        depth=depth,
        heads=heads or max(1, width // CHANNELS_PER_HEAD),
        intermediate=_shape(shapes, "encoder.layers.0.mlp.fc1.weight")[0],
        local_depth=min(4, depth),
        frames=frames,
    )


def vision_buffers(config: VisionConfig, official: str = OFFICIAL) -> dict[str, Tensor]:
    """The buffers that official files hold beside the encoder's weights, by official names."""
    match config:
        case Beit2Config():
            index = gen_relative_position_index((config.grid, config.grid))
            return {f"{official}blocks.{block}.attn.relative_position_index": index for block in range(config.depth)}
        case SwinConfig():
            return _swin_buffers(config, official)
        case ClipVitConfig():
            return {f"{official}position_ids": torch.arange(config.patches + 1)[None]}


def _swin_buffers(config: SwinConfig, official: str) -> dict[str, Tensor]:
    buffers: dict[str, Tensor] = {}
    for stage, depth in enumerate(config.depths):
        side = config.image_size // (config.patch_size * 2**stage)
        for block in range(depth):
            shift = config.window // 2 if block % 2 else 0
            # The library knows which stages are too small for the window; a block one channel wide knows as well as a whole one.
            bare = SwinTransformerBlock(1, (side, side), num_heads=1, window_size=config.window, shift_size=shift)
            name = f"{official}layers.{stage}.blocks.{block}."
            buffers[f"{name}attn.relative_position_index"] = bare.attn.get_buffer("relative_position_index")
            if isinstance(bare.attn_mask, Tensor):
                buffers[f"{name}attn_mask"] = bare.attn_mask
    return buffers


def _shape(shapes: Shapes, name: str) -> torch.Size:
    if name not in shapes:
        raise UserError(f"The file's vision encoder is not whole: {name} is missing.")
    return shapes[name]


def _count(shapes: Shapes, prefix: str) -> int:
    """How many numbered modules follow a prefix."""
    return len({name[len(prefix) :].split(".", 1)[0] for name in shapes if name.startswith(prefix)})


def _root(number: int, name: str) -> int:
    root = math.isqrt(max(number, 0))
    if root * root != number:
        raise UserError(f"The file's vision encoder has no square grid: {name} has {number} positions.")
    return root
