"""MVP from pixels: a vision encoder whose feature map gives the regions that the published model took from a detector.

Shapes: R pairs, V regions, N patches of a g x g grid, D vision width.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.mvp.config import MvpConfig
from models.mvp.model import Mvp, MvpHead
from models.tasks.base import Batch
from models.vision.normalize import normalize_images
from models.vlm import STANDARD_STD, build_vision, rescale

GEOMETRY = 6
"""Numbers that say where a region is: x1, y1, x2, y2, width, height as shares of the image."""
FUSED: set[str] = {"itm", "mlm", "phrase_grounding"}
"""Objectives over the joint encoder."""


class PixelEncoders(nn.Module):
    """A vision encoder and MVP's encoders and heads over what it sees; without one where regions come from a file."""

    def __init__(self, config: ModelConfig, build: Callable[[], Mvp]) -> None:
        """`build` makes MVP's part, once the vision encoder has drawn its initial weights."""
        super().__init__()
        self.config = config
        self.visual_tokenizer = None
        settings = config.mvp
        assert settings is not None, "a recipe of MVP has model.mvp"
        self.vision = build_vision(config.vision) if settings.region_features is None else None
        self.mvp = build()
        if config.initializer_std != STANDARD_STD:
            rescale([part for part in (self.vision, self.mvp) if part is not None], config.initializer_std / STANDARD_STD)
        if self.vision is not None and settings.freeze_vision:
            self.vision.requires_grad_(False)

    def stacks(self) -> list[Sequence[nn.Module]]:
        """The transformer blocks of each encoder, in order, those of the vision encoder first."""
        layers = self.mvp.text_encoder.layers, self.mvp.vision_encoder.layers, self.mvp.joint_encoder.layers
        return [[] if self.vision is None else self.vision.blocks(), *([*blocks] for blocks in layers)]

    def blocks(self) -> list[nn.Module]:
        """All transformer blocks: the units that are compiled, recomputed or sharded by themselves."""
        return [block for stack in self.stacks() for block in stack]

    def bounds(self) -> dict[str, tuple[float, float]]:
        """See `Mvp.bounds`."""
        return {f"mvp.{name}": bounds for name, bounds in self.mvp.bounds().items()}

    def with_regions(self, batch: Batch) -> Batch:
        """A batch whose regions are vectors: those that it has, or, of `image` [R, 3, S, S] and `region_boxes` [R, V, 4], pooled ones."""
        if "regions" in batch:
            return batch
        assert self.vision is not None, "batches with boxes have images, and the model a vision encoder"
        images = normalize_images(batch["image"], self.mvp.dtype)
        with torch.set_grad_enabled(torch.is_grad_enabled() and any(part.requires_grad for part in self.vision.parameters())):
            tokens = self.vision(images)
        return {**batch, "regions": region_vectors(tokens[:, 1:], batch["region_boxes"])}


class PixelMvp(PixelEncoders):
    """With the heads of pre-training."""

    def __init__(self, config: ModelConfig, objectives: Iterable[str]) -> None:
        wanted, settings = set(objectives), config.mvp
        assert settings is not None, "a recipe with streams of concepts has model.mvp"
        heads = heads_for(wanted, settings.learning.grounding == "hard")
        super().__init__(config, lambda: Mvp(mvp_config(config, bool(wanted & FUSED)), heads))


def mvp_config(config: ModelConfig, fuses: bool, answers: int | None = None) -> MvpConfig:
    """Sizes of MVP's encoders in a recipe's model; without a joint encoder where nothing is fused, with a head where there are answers."""
    text, settings = config.text, config.mvp
    assert settings is not None, "a recipe of MVP has model.mvp"
    return MvpConfig(
        width=text.width,
        heads=text.heads,
        intermediate=text.intermediate,
        text_layers=text.layers,
        vision_layers=settings.vision_layers,
        joint_layers=config.fusion.layers if fuses else 0,
        joint=settings.joint if fuses else "single",
        vocab_size=settings.vocab_size,
        words=text.vocab_size,
        max_positions=text.max_positions,
        type_vocab_size=text.type_vocab_size,
        pad_token_id=text.pad_token_id,
        region_width=settings.region_features or config.vision.width + GEOMETRY,
        region_norm=settings.region_norm,
        phrases=settings.phrases,
        vqa_answers=answers,
        temperature=config.temperature,
        tied_mlm=config.tied_mlm,
        dropout=text.dropout,
        layer_norm_eps=text.layer_norm_eps,
    )


def heads_for(objectives: set[str], hard: bool) -> list[MvpHead]:
    """The heads that objectives use: those of their names, and the contrastive one where it chooses wrong pairs."""
    heads: list[MvpHead] = [head for head in ("itc", "itm", "mlm", "concepts", "phrases") if head in objectives]
    chooses = "itm" in objectives or ("phrase_grounding" in objectives and hard)
    return heads if "itc" in heads or not chooses else ["itc", *heads]


def region_vectors(patches: Tensor, boxes: Tensor) -> Tensor:
    """What the visual encoder reads of regions: the mean of the feature map under each box, and where the box is.

    Args:
        patches: [R, N, D] of square images, rows first.
        boxes: [R, V, 4] left, top, right, bottom as shares of the image; all 0 at padding.

    Returns:
        [R, V, D+6]; a patch counts by its share in the box.
    """
    side = round(patches.shape[1] ** 0.5)
    boxes = boxes.to(patches.dtype)
    edges = torch.arange(side + 1, device=boxes.device, dtype=boxes.dtype) / side

    def covered(low: Tensor, high: Tensor) -> Tensor:
        """[R, V] start and end along one side to [R, V, g], how much of each row or column of patches lies between."""
        return (torch.minimum(high[..., None], edges[1:]) - torch.maximum(low[..., None], edges[:-1])).clamp(min=0)

    left, top, right, bottom = boxes.unbind(-1)
    weights = (covered(top, bottom)[..., :, None] * covered(left, right)[..., None, :]).flatten(-2)  # [R, V, N]
    weights = weights / weights.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
    sizes = torch.stack([right - left, bottom - top], dim=-1)
    return torch.cat([weights @ patches, boxes, sizes], dim=-1)
