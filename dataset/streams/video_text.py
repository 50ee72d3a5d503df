"""Clips with captions: one clip, one caption a sample (X2-VLM section 3.1)."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from common.errors import BadRecord
from dataset.clips import ClipReader, augment_clip, choose_part
from dataset.config import VideoTextStream
from dataset.records import Record, RecordSource
from dataset.streams.base import ROWS_PER_RECORD, RecordStream, Sample, TextRow, TextSide, image_tensor, naming, single_rows
from dataset.text import caption_texts, names_a_side, pick_caption, pre_caption
from dataset.transforms import Picture


class VideoTexts(RecordStream):
    """The `video_text` stream. Batches are those of `image_text` with clips [B, F, 3, S, S] in the place of images.

    Args:
        name: of the stream in the recipe.
        source: the records.
        config: its settings.
        text: makes the text tensors.
        image_size: side of the model's input in pixels.
        frames: of a clip.
    """

    def __init__(self, name: str, source: RecordSource, config: VideoTextStream, text: TextSide, image_size: int, frames: int) -> None:
        super().__init__(name, source, config)
        self.config = config
        self.text = text
        self.image_size = image_size
        self.reader = ClipReader(frames, config.max_pixels, config.decoder, config.augmentation.decode)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        record = self.source[index]
        config = self.config
        with naming(record.key):
            frames, captions = self._clip(record, rng)
            caption = pre_caption(pick_caption(captions, rng), self.text.max_tokens)
            may_flip = not (config.augmentation.careful_flip and names_a_side([*caption_texts(captions), caption]))
            pixels = augment_clip(frames, self.image_size, config.augmentation, config.frame_changes, rng, may_flip)
        return Sample(record.key, pixels, (TextRow(caption, index * ROWS_PER_RECORD),), rng)

    def collate(self, groups: list[list[Sample]], rngs: list[np.random.Generator]) -> dict[str, Tensor]:
        clips, rows = single_rows(groups)
        return {"image": image_tensor(clips)} | self.text.tensors(rows)

    def _clip(self, record: Record, rng: np.random.Generator) -> tuple[list[Picture], Any]:
        """The frames of a record, and what may be their caption. Raises BadRecord."""
        config, annotation = self.config, record.annotation
        captions = annotation.get(config.caption_key)
        if record.image is not None:
            return self.reader.video(record.image, rng), captions
        frames = annotation.get(config.frames_key)
        if frames is None:
            raise BadRecord(f'the record has neither a video file nor frames under "{config.frames_key}"', "image")
        if isinstance(frames, list) and frames and isinstance(frames[0], list):
            joined = config.join_parts and bool(annotation.get("is_continuous"))
            frames, captions = choose_part(frames, captions, joined, config.least_frames, rng)
        return self.reader.images(frames, rng), captions
