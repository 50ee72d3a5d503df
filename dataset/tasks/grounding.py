"""Grounding of referring expressions: the box that a text singles out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import Dataset

from common.errors import BadRecord, UserError
from dataset.boxes import Box, target_box, usable_box
from dataset.config import GroundingData
from dataset.streams.base import Sample, TextRow, TextSide, image_tensor, naming, single_rows
from dataset.tasks.files import JsonStream, read_json_list
from dataset.text import EmptyCaption, names_a_side, pre_caption
from dataset.tokenizers import encode_texts
from dataset.transforms import MAX_PIXELS, augment_with_box, read_image, squash

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REQUIRED = ("image", "text", "bbox")


class GroundingTrain(JsonStream):
    """A stream of referring expressions with their boxes.

    Args, errors: as `JsonStream`; files hold [{image, text, bbox: [x, y, w, h], width, height}].
    """

    def __init__(self, config: GroundingData, text: TextSide, image_size: int, name: str = "expressions") -> None:
        super().__init__(config, REQUIRED, text, image_size, name)
        self.config = config

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        file, number, record = self.records[index]
        where = f"{file}, record {number}"
        with naming(where):
            text = pre_caption(str(record["text"]), self.config.max_words)
            image, box = _image_and_box(record, Path(self.config.image_root), self.config.max_pixels)
        augmentation = self.config.augmentation
        may_flip = not (augmentation.careful_flip and names_a_side([text]))
        pixels, placement = augment_with_box(image, box, self.image_size, augmentation, rng, may_flip)
        return Sample(where, pixels, (TextRow(text, index, placement.place(box, 0.0)),), rng)

    def collate(self, groups: list[list[Sample]], rngs: list[np.random.Generator]) -> dict[str, Tensor]:
        return expression_tensors(groups, self.text, self.image_size)


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
    """x, y, w, h of all objects in the image, where the file has them."""


class GroundingSet(Dataset[GroundingItem]):
    """The referring expressions of an evaluation split.

    Args:
        file: JSON list of {image, text, ref_id, bbox, width, height, candidates (optional)}.
        image_root: the folder that image paths are relative to.
        image_size: side of the model's input in pixels.
        max_words: texts are cut to this many words.
        max_pixels: larger images are refused.

    Raises:
        UserError: the file is missing or malformed, an item's image unreadable, its box outside or its text empty: evaluation skips
            nothing.
    """

    def __init__(self, file: Path, image_root: Path, image_size: int, max_words: int = 30, max_pixels: int = MAX_PIXELS) -> None:
        self.file = file
        self.records = read_json_list(file, (*REQUIRED, "ref_id"))
        self.image_root = image_root
        self.image_size = image_size
        self.max_words = max_words
        self.max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> GroundingItem:
        record = self.records[index]
        try:
            image, box = _image_and_box(record, self.image_root, self.max_pixels)
            text = pre_caption(str(record["text"]), self.max_words)
        except (BadRecord, EmptyCaption) as error:
            raise UserError(f"{self.file}, record {index}: {error}.") from error
        return {
            "image": image_tensor([squash(image, self.image_size)])[0],
            "text": text,
            "box": torch.tensor(box, dtype=torch.float32),
            "size": image.size,
            "ref_id": record["ref_id"],
            "path": str(self.image_root / record["image"]),
            "candidates": record.get("candidates"),
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


def _image_and_box(record: dict[str, Any], image_root: Path, max_pixels: int) -> tuple[Image, Box]:
    """The decoded image and its box; BadRecord where either cannot be used."""
    image = read_image(image_root / record["image"], max_pixels)
    stated = (record.get("width", image.width), record.get("height", image.height))
    if stated != image.size:
        raise BadRecord(f"the image {record['image']} has {image.width} x {image.height} pixels, the record says {stated[0]} x {stated[1]}")
    box = usable_box(record["bbox"], image.width, image.height)
    if box is None:
        raise BadRecord(f"box {record['bbox']} is empty or outside the image of {image.width} x {image.height} pixels")
    return image, box
