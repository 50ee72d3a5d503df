"""Training pairs of WIT, whose JSON lines hold their images."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import numpy as np
from torch import Tensor

from common.errors import BadRecord
from dataset.config import RetrievalData
from dataset.jsonlines import JsonLinesSource
from dataset.storage import Storage
from dataset.streams.base import RecordStream, Sample, TextRow, TextSide, image_tensor, naming, single_rows
from dataset.streams.image_text import record_image
from dataset.tasks.files import warn_of_count
from dataset.tasks.galleries import WIT_KEYS, first_keys, wit_caption
from dataset.tasks.retrieval import RetrievalTrain
from dataset.text import names_a_side
from dataset.transforms import augment_image

URL, IMAGE, CAPTION = WIT_KEYS


class WitTrain(RecordStream):
    """A stream of images with a caption each; sample_ids tell images apart by their URL, so that captions of one are no negatives.

    Args:
        config: files of JSON lines, read line by line: they are larger than memory; batch size, augmentation.
        text: makes the text tensors, without masking.
        image_size: side of the model's input in pixels.
        name: of the stream.
        storage: how files are read.

    Raises:
        UserError: a file is missing.
    """

    def __init__(self, config: RetrievalData, text: TextSide, image_size: int, name: str = "pairs", storage: Storage | None = None) -> None:
        super().__init__(name, JsonLinesSource(config.train, IMAGE, storage=storage), config)
        self.config, self.text, self.image_size = config, text, image_size
        warn_of_count(str(config.train), "captions", len(self), config.expected_of("train"))

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        record = self.source[index]
        augmentation = self.config.augmentation
        with naming(record.key):
            caption, url = record.annotation.get(CAPTION), record.annotation.get(URL)
            if not isinstance(caption, str) or not isinstance(url, str):
                raise BadRecord(f"{CAPTION if isinstance(url, str) else URL} is no text")
            may_flip = not (augmentation.careful_flip and names_a_side([caption]))
            text = wit_caption(caption, self.config.max_words, self.config.punctuation)
            image = record_image(record, self.config.max_pixels, augmentation.decode)
            pixels = augment_image(image, self.image_size, augmentation, rng, may_flip)
        number = int.from_bytes(blake2b(url.encode(), digest_size=8).digest(), "big") >> 1  # as int64; equal for equal URLs alone
        return Sample(record.key, pixels, (TextRow(text, number),), rng)

    def collate(self, groups: list[list[Sample]], rngs: list[np.random.Generator]) -> dict[str, Tensor]:
        images, rows = single_rows(groups)
        return {"image": image_tensor(images)} | self.text.tensors(rows)


def retrieval_train(
    config: RetrievalData, text: TextSide, image_size: int, name: str, storage: Storage, frames: int | None = None
) -> RetrievalTrain | WitTrain:
    """The training pairs of files of either layout; how the first one begins tells which. WIT has images alone, no clips of `frames`.

    Raises:
        UserError: a file is missing or malformed.
    """
    first = Path(config.train if isinstance(config.train, str) else config.train[0])
    if IMAGE in first_keys(first):
        return WitTrain(config, text, image_size, name, storage)
    return RetrievalTrain(config, text, image_size, name, frames)
