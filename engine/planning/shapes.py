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
from dataset.config import ImageTextStream, MaskingConfig, RegionTextStream, VideoTextStream
from dataset.parallel_config import ParallelTextStream
from dataset.streams.unpaired_config import ImageStream, TextStream
from dataset.tasks.grounding_config import GroundingData
from engine.config.schema import RunConfig, StreamSettings

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
    second: bool = False
    """Whether each text has another of its length beside it, in another language."""
    joined: bool = False
    """Whether both stand in one row, too."""
    frames: int | None = None
    """Of a clip, where texts describe clips."""
    hides: int | None = None
    """Patches of an image, where some are hidden."""

    @property
    def rows(self) -> int:
        """Texts, or images of a stream without texts."""
        return self.texts or self.images

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
        frames = () if self.frames is None else (self.frames,)
        batch = {"image": torch.empty(self.images, *frames, 3, side, side)} if self.images else {}
        if self.texts:
            batch |= self._text_tensors()
        if self.hides is not None:
            batch["patch_hidden"] = torch.empty(self.images, self.hides, dtype=torch.bool)
        return batch

    def _text_tensors(self) -> dict[str, Tensor]:
        count, index = self.texts, torch.int64
        ids = torch.empty(count, self.tokens, dtype=index)
        batch = {
            "text_ids": ids,
            "text_mask": torch.empty(ids.shape, dtype=torch.bool),
            "sample_ids": torch.empty(count, dtype=index),
            "group": torch.empty(count, dtype=index),
            "negative_draws": torch.empty(count, 2),
        }
        if self.masking is not None:
            batch["text_ids_masked"] = torch.empty_like(ids)
            batch |= {name: torch.empty(count, self.masked, dtype=index) for name in ("masked_positions", "mlm_labels")}
        if self.second:
            batch |= {"text_ids_2": torch.empty_like(ids), "text_mask_2": torch.empty(ids.shape, dtype=torch.bool)}
        if self.joined:
            both = torch.empty(count, 2 * self.tokens - 1, dtype=index)
            batch |= {"pair_ids_masked": both, "pair_mask": torch.empty(both.shape, dtype=torch.bool)}
            batch |= {name: torch.empty(count, self.masked, dtype=index) for name in ("pair_masked_positions", "pair_mlm_labels")}
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
    sentence: int = 25
    """Of parallel text."""


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
        raise UserError("There is no plan of MVP (model.mvp) yet.")
    return {name: _stream_shape(config, settings, lengths) for name, settings in config.batches().items()}


def _stream_shape(config: RunConfig, settings: StreamSettings, lengths: TextLengths | None) -> StreamShape:
    vision, rows = config.model.vision, settings.batch_size
    longest = config.tokenizer.max_tokens

    def tokens(usual: int, most: int) -> int:
        return most if lengths is None else min(usual, most)

    usual = TextLengths() if lengths is None else lengths
    match settings:
        case TextStream():  # documents fill their rows
            return StreamShape(rows, 0, settings.max_tokens, settings.masking, None, False)
        case ImageStream():
            return StreamShape(0, rows, 0, None, None, False, hides=vision.patches)
        case ParallelTextStream():
            length = tokens(usual.sentence, settings.max_tokens or longest)
            joined = settings.objectives.get("tlm", 0.0) > 0
            return StreamShape(rows, 0, length, settings.masking, None, False, second=True, joined=joined)
        case RegionTextStream():
            length = tokens(usual.region, longest)
            return StreamShape(rows, settings.max_images, length, settings.masking, vision.patches, True)
        case GroundingData():
            return StreamShape(rows, rows, tokens(usual.region, longest), None, None, True)
        case VideoTextStream():
            return StreamShape(rows, rows, tokens(usual.caption, longest), settings.masking, None, False, frames=vision.frames)
        case ImageTextStream():
            second = settings.objectives.get("ttc", 0.0) > 0
            hides = vision.patches if settings.objectives.get("mim") else None
            length = tokens(usual.caption, longest)
            return StreamShape(rows, rows, length, settings.masking, None, False, second=second, hides=hides)
        case _:
            frames = vision.frames if config.task == "retrieval" else None
            return StreamShape(rows, rows, tokens(usual.caption, longest), None, None, False, frames=frames)


def share(shapes: Shapes, texts: int) -> dict[str, StreamShape]:
    """As much of every stream as makes `texts` rows of the first one, rounded up; at least one text and one image of each that has any."""
    whole = next(iter(shapes.values())).rows
    return {
        name: replace(shape, texts=-(-shape.texts * texts // whole), images=-(-shape.images * texts // whole))
        for name, shape in shapes.items()
    }
