"""Images with captions: one image, one caption a sample; or two, where captions are contrasted with each other."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from common.errors import BadRecord
from dataset.config import Decoding, ImageTextStream
from dataset.patch_masking import PatchSide
from dataset.records import Record, RecordSource
from dataset.streams.base import ROWS_PER_RECORD, RecordStream, Sample, TextRow, TextSide, image_tensor, naming, single_rows
from dataset.text import Captions, caption_texts, names_a_side, pick_caption, pick_two_captions, pre_caption
from dataset.transforms import Picture, augment_image, open_picture


class ImageTexts(RecordStream):
    """The `image_text` stream.

    Args:
        name: of the stream in the recipe.
        source: the records.
        config: its settings.
        text: makes the text tensors.
        image_size: side of the model's input in pixels.
        patches: hides patches; None: batches have no hidden patches.
    """

    def __init__(
        self,
        name: str,
        source: RecordSource,
        config: ImageTextStream,
        text: TextSide,
        image_size: int,
        patches: PatchSide | None = None,
    ) -> None:
        super().__init__(name, source, config)
        self.config = config
        self.text = text
        self.image_size = image_size
        self.patches = patches
        self.paired = config.objectives.get("ttc", 0.0) > 0

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        record = self.source[index]
        captions = record.annotation.get(self.config.caption_key)
        augmentation = self.config.augmentation
        may_flip = not (augmentation.careful_flip and names_a_side(caption_texts(captions)))
        with naming(record.key):
            texts = [pre_caption(text, self.text.max_tokens) for text in self._pick(captions, rng)]
            image = record_image(record, self.config.max_pixels, augmentation.decode)
            pixels = augment_image(image, self.image_size, augmentation, rng, may_flip)
        return Sample(record.key, pixels, tuple(TextRow(text, index * ROWS_PER_RECORD) for text in texts), rng)

    def _pick(self, captions: Captions, rng: np.random.Generator) -> list[str]:
        """The captions of one sample."""
        if self.paired:
            return pick_two_captions(captions, rng, self.config.languages)
        return [pick_caption(captions, rng, languages=self.config.languages)]

    def collate(self, groups: list[list[Sample]], rngs: list[np.random.Generator]) -> dict[str, Tensor]:
        """The image (uint8 [B, 3, S, S]) and text tensors; of second captions also those of `TextSide.second`, and where patches are hidden
        patch_hidden bool [B, N]."""
        images, rows = single_rows(groups)
        tensors = {"image": image_tensor(images)} | self.text.tensors(rows)
        if self.paired:
            tensors |= self.text.second(single_rows(groups, place=1)[1])
        return tensors if self.patches is None else tensors | self.patches.tensors([placed.rng for placed in rows])


def record_image(record: Record, max_pixels: int, decoding: Decoding) -> Picture:
    """A record's image, to be augmented. Raises BadRecord."""
    if record.image is None:
        raise BadRecord("the record has no image", "image")
    return open_picture(record.image, max_pixels, decoding)
