"""Images without texts: masked image modelling alone (X-FM, arXiv 2301.05065, section 3.3)."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from dataset.patch_masking import PatchSide
from dataset.records import RecordSource
from dataset.streams.base import RecordStream, Sample, image_tensor, naming
from dataset.streams.image_text import record_image
from dataset.streams.unpaired_config import ImageStream
from dataset.transforms import augment_image


class Images(RecordStream):
    """The `image` stream.

    Args:
        name: of the stream in the recipe.
        source: the records.
        config: its settings.
        image_size: side of the model's input in pixels.
        patches: hides patches.
    """

    def __init__(self, name: str, source: RecordSource, config: ImageStream, image_size: int, patches: PatchSide) -> None:
        super().__init__(name, source, config)
        self.config = config
        self.image_size = image_size
        self.patches = patches

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """The record's image; a sample has no rows."""
        record, augmentation = self.source[index], self.config.augmentation
        with naming(record.key):
            image = record_image(record, self.config.max_pixels, augmentation.decode)
            return Sample(record.key, augment_image(image, self.image_size, augmentation, rng), (), rng)

    def collate(self, groups: list[list[Sample]], rngs: list[np.random.Generator]) -> dict[str, Tensor]:
        """image uint8 [B, 3, S, S], patch_hidden bool [B, N]."""
        samples = [sample for members in groups for sample in members]
        return {"image": image_tensor([sample.image for sample in samples])} | self.patches.tensors([sample.rng for sample in samples])
