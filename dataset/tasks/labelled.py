"""Labelled records: a text, images, or both, with one of a few labels. What statements about pairs and classification share.

Shapes: R records, K images of each, L tokens, S image side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from common.errors import BadRecord, UserError
from common.labels import IGNORED
from dataset.class_augmentation import augment_for_classes, middle
from dataset.config import ClassAugmentation, LabelledData
from dataset.streams.base import NO_IMAGE, PlacedRow, Sample, TextRow, TextSide, image_tensor, naming
from dataset.tasks.files import JsonStream, read_records, warn_of_count
from dataset.text import EmptyCaption, Text, names_a_side, pre_caption
from dataset.tokenizers import encode_texts
from dataset.transforms import augment_image, read_image, squash

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class LabelledRecord:
    """One record of a file."""

    where: str
    """File and number or line, for messages."""
    images: tuple[str, ...]
    """Paths below the image folder."""
    text: str | None
    label: int | float
    """Its class, or the number to learn; IGNORED where it is kept secret."""
    key: str
    """What predictions call it."""
    group: str = ""
    """Records of one group are judged together, such as the image pairs of one sentence."""
    second: str | None = None
    """What the text is compared with."""
    picture: Callable[[], Image.Image] | None = None
    """Opens its image where that is no file."""

    def open(self, config: LabelledData) -> list[Image.Image]:
        """Its images.

        Raises:
            BadRecord: one cannot be read.
        """
        if self.picture is not None:
            return [self.picture()]
        return [read_image(Path(config.image_root) / image, config.max_pixels) for image in self.images]

    def row(self, config: LabelledData) -> Text | None:
        """Its text or texts, normalised unless they are to stay as they are.

        Raises:
            EmptyCaption: nothing is left of one.
        """
        given = [text for text in (self.text, self.second) if text is not None]
        texts = given if config.raw_text else [pre_caption(text, config.max_words, config.punctuation) for text in given]
        return (texts[0], texts[1]) if len(texts) == 2 else texts[0] if texts else None


Read = Callable[[Path], list[LabelledRecord]]
"""Reads a file; raises UserError naming the first bad record."""


@dataclass(frozen=True)
class LabelledSample(Sample):
    """A record, transformed and ready to be collated; `image` is its first image."""

    images: tuple[np.ndarray, ...] = ()
    """K of uint8 [S, S, 3]."""
    label: int | float = 0


def values_of(where: str, record: dict[str, Any], keys: Sequence[str]) -> list[Any]:
    """The values of these keys.

    Raises:
        UserError: one is missing.
    """
    missing = [key for key in keys if key not in record]
    if missing:
        raise UserError(f"{where}: {', '.join(missing)} is missing; it has {', '.join(record)}.")
    return [record[key] for key in keys]


class LabelledTrain(JsonStream):
    """A training stream of labelled records.

    Args:
        config: files, batch size, augmentation.
        read: reads a file; takes the folder that image paths are relative to.
        text: makes the text tensors.
        image_size: side of the model's input in pixels.
        name: of the stream.

    Raises:
        UserError: a file is missing or a record malformed.
    """

    def __init__(self, config: LabelledData, read: Callable[[Path], Read], text: TextSide, image_size: int, name: str = "train") -> None:
        self._read = read(Path(config.image_root))
        super().__init__(config, (), text, image_size, name)
        self.config = config
        warn_of_count("data.train", "records", len(self.records), config.expected_of("train"))

    def read(self, file: Path, required: tuple[str, ...]) -> list[LabelledRecord]:
        """See `JsonStream`."""
        return self._read(file)

    @property
    def labels(self) -> list[int | float]:
        """Of all records."""
        return [record.label for _, _, record in self.records]

    def sample(self, index: int, rng: np.random.Generator) -> LabelledSample:
        """The record with each of its images augmented by itself."""
        record: LabelledRecord = self.records[index][2]
        augmentation = self.config.augmentation
        with naming(record.where):
            text, images = record.row(self.config), record.open(self.config)
        may_flip = not (augmentation.careful_flip and record.text is not None and names_a_side([record.text]))
        augment = augment_for_classes if isinstance(augmentation, ClassAugmentation) else augment_image
        pixels = tuple(augment(image, self.image_size, augmentation, rng, may_flip) for image in images)
        rows = () if text is None else (TextRow(text, index),)
        return LabelledSample(record.where, pixels[0] if pixels else NO_IMAGE, rows, rng, pixels, record.label)

    def collate(self, groups: list[list[Sample]], rngs: list[np.random.Generator]) -> dict[str, Tensor]:
        """label int64 [R], or float32 [R] of numbers; where there are texts, their tensors; where there are images, image uint8
        [K * R, 3, S, S], the first images of all records before the second ones."""
        samples = [(group, sample) for group, members in enumerate(groups) for sample in members if isinstance(sample, LabelledSample)]
        tensors = {"label": torch.tensor([sample.label for _, sample in samples])}
        tensors |= _images([sample.images for _, sample in samples])
        if samples[0][1].rows:
            rows = [PlacedRow(sample.rows[0], row, group, sample.rng) for row, (group, sample) in enumerate(samples)]
            tensors |= self.text.tensors(rows)
        return tensors


class LabelledItem(TypedDict):
    """One record of an evaluation split."""

    index: int
    images: list[np.ndarray]
    """K of uint8 [S, S, 3], squashed to the square."""
    text: Text | None
    label: int | float


class LabelledSet(Dataset[LabelledItem]):
    """The records of an evaluation split.

    Args:
        split: validation, test, or a language of the settings.
        config: files, and how texts are read.
        read: reads the file; takes the folder that image paths are relative to.
        image_size: side of the model's input in pixels.

    Raises:
        UserError: the file is missing, a record malformed, or an item's image unreadable or text empty: evaluation skips nothing.
    """

    def __init__(self, split: str, config: LabelledData, read: Callable[[Path], Read], image_size: int) -> None:
        file, image_root = _place(split, config)
        expected = config.expected_of("test", split) if split in config.languages else config.expected_of(split)
        self.split, self.file = split, file
        self.records = read(image_root)(file)
        if not self.records:
            raise UserError(f"{file}: no record has a label that counts.")
        self.image_size = image_size
        self.config = config.model_copy(update={"image_root": str(image_root)})
        warn_of_count(str(file), "records", len(self.records), expected)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> LabelledItem:
        record = self.records[index]
        try:
            text, images = record.row(self.config), record.open(self.config)
        except (BadRecord, EmptyCaption) as error:
            raise UserError(f"{record.where}: {error}.") from error
        crop = self.config.test_crop
        squares = [squash(image, self.image_size) if crop is None else middle(image, self.image_size, crop) for image in images]
        return {"index": index, "images": squares, "text": text, "label": record.label}

    @property
    def labels(self) -> list[int | float]:
        """Of all records."""
        return [record.label for record in self.records]

    @property
    def answered(self) -> bool:
        """Whether there is anything to compare predictions with."""
        return any(record.label != IGNORED for record in self.records)


def _place(split: str, config: LabelledData) -> tuple[Path, Path]:
    """File and image folder of a split."""
    if split in config.languages:
        language = config.languages[split]
        return Path(language.file), Path(config.image_root if language.image_root is None else language.image_root)
    return Path(config.validation if split == "validation" else config.test), Path(config.image_root)


def collate_labelled(items: list[LabelledItem], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> dict[str, Tensor]:
    """Items as one batch: index int64 [R], label int64 or float32 [R]; image and text_ids, text_mask as in training."""
    tensors = {name: torch.tensor([item[name] for item in items]) for name in ("index", "label")}
    tensors |= _images([item["images"] for item in items])
    texts = [item["text"] for item in items if item["text"] is not None]
    if texts:
        ids, mask = encode_texts(tokenizer, texts, max_tokens)
        tensors |= {"text_ids": ids, "text_mask": mask}
    return tensors


def _images(images: Collection[Sequence[np.ndarray]]) -> dict[str, Tensor]:
    """K images of R records as "image" [K * R, 3, S, S]; nothing where there are none."""
    in_order = [image for place in zip(*images, strict=True) for image in place]
    return {"image": image_tensor(in_order)} if in_order else {}


def read_labelled(file: Path, parse: Callable[[str, dict[str, Any]], LabelledRecord | None]) -> list[LabelledRecord]:
    """The records of a file that count; `parse` takes a record and its place."""
    parsed = (parse(where, record) for where, record in read_records(file))
    return [record for record in parsed if record is not None]
