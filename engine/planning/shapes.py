"""The shapes of a batch, from a config alone.

Shapes: B images, R texts, N patches, L text tokens, M hidden tokens, S image side in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from common.errors import UserError
from dataset.config import GroundingData, MaskingConfig, RegionTextStream, StreamConfig
from engine.config.schema import RunConfig

PLANNED = ("pretrain", "retrieval", "grounding")
"""Tasks whose batches are of the shapes that are known here."""


@dataclass(frozen=True)
class StreamShape:
    """One stream's part of a micro-batch of one GPU."""

    texts: int
    images: int
    tokens: int
    """Length of every text, [CLS] and [SEP] counted."""
    masking: MaskingConfig | None
    """None: batches carry no masked texts."""
    patches: int | None
    """Of an image, where texts describe regions."""
    boxes: bool

    @property
    def masked(self) -> int:
        """Hidden tokens of a text."""
        assert self.masking is not None, "asked of streams with masking only"
        return min(self.masking.max_masks, max(1, round(self.tokens * self.masking.probability)))

    def tensors(self, side: int, device: str | None = None) -> dict[str, Tensor]:
        """An uninitialised batch under the keys of the real one; images of `side` pixels are already normalised."""
        with nullcontext() if device is None else torch.device(device):
            return self._tensors(side)

    def _tensors(self, side: int) -> dict[str, Tensor]:
        count, index = self.texts, torch.int64
        ids = torch.empty(count, self.tokens, dtype=index)
        batch = {
            "image": torch.empty(self.images, 3, side, side),
            "text_ids": ids,
            "text_mask": torch.empty(ids.shape, dtype=torch.bool),
            "sample_ids": torch.empty(count, dtype=index),
            "group": torch.empty(count, dtype=index),
            "negative_draws": torch.empty(count, 2),
        }
        if self.masking is not None:
            batch["text_ids_masked"] = torch.empty_like(ids)
            batch |= {name: torch.empty(count, self.masked, dtype=index) for name in ("masked_positions", "mlm_labels")}
        if self.patches is not None:
            batch["patch_mask"] = torch.empty(count, self.patches, dtype=torch.bool)
        if self.boxes:
            batch["image_index"] = torch.empty(count, dtype=index)
            batch |= {"target_box": torch.empty(count, 4), "is_image": torch.empty(count, dtype=torch.bool)}
        return batch


Shapes = Mapping[str, StreamShape]
"""A micro-batch of one GPU, by stream."""


@dataclass(frozen=True)
class TextLengths:
    """Tokens of texts, [CLS] and [SEP] counted: assumptions, since no data is read."""

    caption: int = 12
    region: int = 5


def step_shapes(config: RunConfig, lengths: TextLengths | None) -> dict[str, StreamShape]:
    """The batch of a whole optimizer step over all GPUs.

    Args:
        config: of one of the tasks in `PLANNED`.
        lengths: of texts; None: as long as any text can be.

    Raises:
        UserError: it is not known what batches of the task look like.
    """
    if config.task not in PLANNED:
        raise UserError(f"There is no plan of the task {config.task} yet; there are plans of {', '.join(PLANNED)}.")
    if config.model.mvp is not None:
        raise UserError("There is no plan of pre-training on concepts (model.mvp) yet.")
    longest = config.tokenizer.max_tokens
    shapes: dict[str, StreamShape] = {}
    for name, settings in config.batches().items():
        regions = isinstance(settings, RegionTextStream)
        phrases = regions or isinstance(settings, GroundingData)
        tokens = longest if lengths is None else min(lengths.region if phrases else lengths.caption, longest)
        images = settings.max_images if isinstance(settings, RegionTextStream) else settings.batch_size
        masking = settings.masking if isinstance(settings, StreamConfig) else None
        shapes[name] = StreamShape(settings.batch_size, images, tokens, masking, config.model.vision.patches if regions else None, phrases)
    return shapes


def share(shapes: Shapes, texts: int) -> dict[str, StreamShape]:
    """As much of every stream as makes `texts` texts of the first one, rounded up; at least one text and one image of each."""
    whole = next(iter(shapes.values())).texts
    return {
        name: replace(shape, texts=-(-shape.texts * texts // whole), images=-(-shape.images * texts // whole))
        for name, shape in shapes.items()
    }
