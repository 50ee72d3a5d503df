"""Grounding of referring expressions: the box that a text singles out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from common.errors import BadRecord, UserError
from dataset.boxes import Box, Placement, target_box, usable_box
from dataset.config import Decoding
from dataset.streams.base import Sample, TextRow, TextSide, image_tensor, naming, single_rows
from dataset.streams.concepts import tags_of
from dataset.tasks.expressions import BASIC, BOXED, EVALUATED, Expressions
from dataset.tasks.files import JsonStream
from dataset.tasks.grounding_config import GroundingData
from dataset.text import EmptyCaption, Punctuation, names_a_side, pre_caption
from dataset.tokenizers import encode_texts
from dataset.transforms import MAX_PIXELS, Picture, augment_image, augment_with_box, read_image, read_picture, squash

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class ExpressionStream(JsonStream):
    """What the streams of referring expressions share: which records there are, and how their texts are read."""

    ranked = False
    """See `Expressions`."""

    def __init__(self, config: GroundingData, required: tuple[str, ...], text: TextSide, image_size: int, name: str) -> None:
        self.config = config
        super().__init__(config, required, text, image_size, name)

    def read(self, file: Path, required: tuple[str, ...]) -> list[tuple[str, dict[str, Any]]]:
        """Records with their places, see `Expressions.records`."""
        return Expressions.of(self.config, str(file), self.ranked).records(required)

    def words(self, record: dict[str, Any]) -> str:
        """The normalised text of a record."""
        return pre_caption(str(record["text"]), self.config.max_words, self.config.punctuation)

    def picture(self, record: dict[str, Any], decode: Decoding) -> Picture:
        """The image of a record."""
        return read_picture(Path(self.config.image_root) / record["image"], self.config.max_pixels, decode)


@dataclass(frozen=True)
class PlacedExpression:
    """An expression in its transformed image."""

    pixels: np.ndarray
    """uint8 [S, S, 3]."""
    row: TextRow
    """With the box."""
    placement: Placement
    """How boxes of the image come to the square."""
    size: tuple[int, int]
    """(width, height) of the original image in pixels."""


class GroundingTrain(ExpressionStream):
    """A stream of referring expressions with their boxes.

    Args, errors: as `JsonStream`; records as `GroundingData`.
    """

    def __init__(self, config: GroundingData, text: TextSide, image_size: int, name: str = "expressions") -> None:
        super().__init__(config, BOXED, text, image_size, name)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        _, _, (where, record) = self.records[index]
        with naming(where):
            placed = self.place(index, record, rng)
        return Sample(where, placed.pixels, (placed.row,), rng)

    def place(self, index: int, record: dict[str, Any], rng: np.random.Generator) -> PlacedExpression:
        """A record transformed at random. Raises BadRecord or EmptyCaption."""
        augmentation = self.config.augmentation
        text = self.words(record)
        image = self.picture(record, augmentation.decode)
        box = _box_in(record, image.size)
        may_flip = not (augmentation.careful_flip and names_a_side([text]))
        pixels, placement = augment_with_box(image, box, self.image_size, augmentation, rng, may_flip)
        return PlacedExpression(pixels, TextRow(text, index, placement.place(box, 0.0)), placement, image.size)

    def collate(self, groups: list[list[Sample]], rngs: list[np.random.Generator]) -> dict[str, Tensor]:
        return expression_tensors(groups, self.text, self.image_size)


class ExpressionPairs(ExpressionStream):
    """A stream of referring expressions as pairs of a text with an image, boxes unread; sample_ids are the images, so that expressions
    about one image are not each other's negatives.

    Args, errors: as `JsonStream`; records need image and text alone.
    """

    def __init__(self, config: GroundingData, text: TextSide, image_size: int, name: str = "expressions") -> None:
        super().__init__(config, BASIC, text, image_size, name)
        numbers: dict[str, int] = {}
        self.image_numbers = [numbers.setdefault(record["image"], len(numbers)) for _, _, (_, record) in self.records]

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        _, _, (where, record) = self.records[index]
        augmentation = self.config.image_augmentation
        with naming(where):
            text = self.words(record)
            may_flip = not (augmentation.careful_flip and names_a_side([text]))
            pixels = augment_image(self.picture(record, augmentation.decode), self.image_size, augmentation, rng, may_flip)
        return Sample(where, pixels, (TextRow(text, self.image_numbers[index]),), rng)

    def collate(self, groups: list[list[Sample]], rngs: list[np.random.Generator]) -> dict[str, Tensor]:
        images, rows = single_rows(groups)
        return {"image": image_tensor(images)} | self.text.tensors(rows)


def expression_tensors(groups: list[list[Sample]], text: TextSide, image_size: int) -> dict[str, Tensor]:
    """The batch of expressions with one box each. Adds to the text tensors: image uint8 [B, 3, S, S], image_index int64 [B], target_box
    float32 [B, 4] (cx, cy, w, h as shares of the side), is_image bool [B], all False."""
    images, rows = single_rows(groups)
    boxes = [placed.row.box for placed in rows]
    assert all(box is not None for box in boxes), "the crop keeps the box"
    targets = [target_box(box, image_size) for box in boxes if box is not None]
    return (
        {"image": image_tensor(images)}
        | text.tensors(rows)
        | {
            "image_index": torch.arange(len(rows)),
            "target_box": torch.tensor(targets, dtype=torch.float32),
            "is_image": torch.zeros(len(rows), dtype=torch.bool),
        }
    )


class GroundingItem(TypedDict):
    """One referring expression of an evaluation split."""

    image: Tensor
    """uint8 [3, S, S], the whole image squashed to the square."""
    text: str
    box: Tensor
    """float32 [4], x, y, w, h in pixels of the original image."""
    size: tuple[int, int]
    """(width, height) of the original image in pixels."""
    ref_id: int | str
    path: str
    candidates: list[list[float]] | None
    """x, y, w, h of objects in the image to choose among, where they are known."""
    tags: tuple[str, ...]
    """What the image is said to show."""
    segmentation: Any
    """The object's mask as an annotation, see `decode_mask`; None where it is not known."""
    place: str
    """File and number of the record, for messages."""


class GroundingSet(Dataset[GroundingItem]):
    """The referring expressions of an evaluation split.

    Args:
        source: records of {image, text, ref_id, bbox, width, height, and perhaps candidates, tags, segmentation, split}.
        image_size: side of the model's input in pixels.
        max_words: texts are cut to this many words.
        max_pixels: larger images are refused.
        punctuation: what becomes of it.

    Raises:
        UserError: a file is missing or malformed, an item's image unreadable, its box outside or its text empty: evaluation skips
            nothing.
    """

    def __init__(
        self,
        source: Expressions,
        image_size: int,
        max_words: int = 30,
        max_pixels: int = MAX_PIXELS,
        punctuation: Punctuation = "space",
    ) -> None:
        self.places, self.records = zip(*source.records(EVALUATED), strict=True)
        self.image_root = source.image_root
        self.image_size = image_size
        self.max_words = max_words
        self.max_pixels = max_pixels
        self.punctuation: Punctuation = punctuation

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> GroundingItem:
        record = self.records[index]
        try:
            image = read_image(self.image_root / record["image"], self.max_pixels)
            box = _box_in(record, image.size)
            text = pre_caption(str(record["text"]), self.max_words, self.punctuation)
        except (BadRecord, EmptyCaption) as error:
            raise UserError(f"{self.places[index]}: {error}.") from error
        return {
            "image": image_tensor([squash(image, self.image_size)])[0],
            "text": text,
            "box": torch.tensor(box, dtype=torch.float32),
            "size": image.size,
            "ref_id": record["ref_id"],
            "path": str(self.image_root / record["image"]),
            "candidates": record.get("candidates"),
            "tags": tags_of(record, "stored"),
            "segmentation": record.get("segmentation"),
            "place": self.places[index],
        }


class GroundingBatch(TypedDict):
    """Some items of a `GroundingSet`, ready for the model."""

    image: Tensor
    """uint8 [B, 3, S, S]."""
    text_ids: Tensor
    """int64 [B, L]."""
    text_mask: Tensor
    """bool [B, L], True = token."""
    box: Tensor
    """float32 [B, 4], x, y, w, h in pixels of the original images."""
    size: Tensor
    """float32 [B, 2], width and height of the original images."""
    items: list[GroundingItem]


def collate_grounding(items: list[GroundingItem], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> GroundingBatch:
    """Items as one batch."""
    ids, mask = encode_texts(tokenizer, [item["text"] for item in items], max_tokens)
    return {
        "image": torch.stack([item["image"] for item in items]),
        "text_ids": ids,
        "text_mask": mask,
        "box": torch.stack([item["box"] for item in items]),
        "size": torch.tensor([item["size"] for item in items], dtype=torch.float32),
        "items": items,
    }


def _box_in(record: dict[str, Any], size: tuple[int, int]) -> Box:
    """The box of a record whose image has this (width, height). Raises BadRecord where either does not fit."""
    width, height = size
    stated = (record.get("width", width), record.get("height", height))
    if stated != size:
        raise BadRecord(f"the image {record['image']} has {width} x {height} pixels, the record says {stated[0]} x {stated[1]}")
    box = usable_box(record["bbox"], width, height)
    if box is None:
        raise BadRecord(f"box {record['bbox']} is empty or outside the image of {width} x {height} pixels")
    return box
