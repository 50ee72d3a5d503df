"""Images with described boxes: one image, several texts a sample (X2-VLM section 3.1, multi-grained alignment).

A batch holds a fixed number of images and a fixed number of rows; every group chooses its rows among those of its own images.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import BadRecord
from dataset.boxes import Box, Placement, patch_mask, target_box, usable_box
from dataset.config import RegionTextStream
from dataset.records import Record, RecordSource
from dataset.streams.base import ROWS_PER_RECORD, PlacedRow, RecordStream, Sample, TextRow, TextSide, image_tensor, naming
from dataset.streams.image_text import record_image
from dataset.text import Captions, EmptyCaption, caption_texts, names_a_side, pick_caption, pre_caption, spoken
from dataset.transforms import augment_with_box

WHOLE_IMAGE = (0.5, 0.5, 1.0, 1.0)
"""Target box of a text about the whole image: cx, cy, w, h."""


class RegionTexts(RecordStream):
    """The `region_text` stream.

    Args:
        name: of the stream in the recipe.
        source: the records.
        config: its settings.
        text: makes the text tensors.
        image_size, patch_size: of the model, in pixels.
    """

    def __init__(self, name: str, source: RecordSource, config: RegionTextStream, text: TextSide, image_size: int, patch_size: int) -> None:
        super().__init__(name, source, config)
        self.config = config
        self.text = text
        self.image_size = image_size
        self.patch_size = patch_size
        self.images_per_batch = config.max_images

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """The record's image, cropped around one of its boxes, with the texts of the boxes that stay visible.

        An element with a box outside the image or without a caption is left out.

        Raises:
            BadRecord: no image, or no element that can be used.
        """
        record = self.source[index]
        augmentation = self.config.augmentation
        may_flip = not (augmentation.careful_flip and names_a_side(_all_texts(record, self.config.caption_key)))
        with naming(record.key):
            image = record_image(record, self.config.max_pixels, augmentation.decode)
            elements = _usable_elements(record, image.width, image.height, self.config)
            keep = elements[int(rng.integers(len(elements)))][1]
            pixels, placement = augment_with_box(image, keep, self.image_size, augmentation, rng, may_flip)
        rows = self._caption_row(record, index, rng) + self._region_rows(elements, placement, index, rng)
        rows = rows[: self.config.max_regions]
        if not rows:
            raise BadRecord(f"{record.key}: none of the drawn captions has words")
        return Sample(record.key, pixels, tuple(rows), rng)

    def _caption_row(self, record: Record, index: int, rng: np.random.Generator) -> list[TextRow]:
        captions = record.annotation.get(self.config.caption_key)
        if not (self.config.image_caption and _has_words(spoken(captions, self.config.languages))):
            return []
        text = self._text(captions, None, rng)
        return [] if text is None else [TextRow(text, self._sample_id(text, index * ROWS_PER_RECORD))]

    def _region_rows(
        self, elements: list[tuple[int, Box, dict[str, Any]]], placement: Placement, index: int, rng: np.random.Generator
    ) -> list[TextRow]:
        """Rows of the visible elements in random order, at most max_regions."""
        rows: list[TextRow] = []
        for choice in rng.permutation(len(elements)).tolist():
            number, box, element = elements[choice]
            placed = placement.place(box, self.config.min_visible)
            if placed is None:
                continue
            text = self._text(element.get(self.config.caption_key), element.get("attributes"), rng)
            if text is not None:
                rows.append(TextRow(text, self._sample_id(text, index * ROWS_PER_RECORD + 1 + number), placed))
            if len(rows) == self.config.max_regions:
                break
        return rows

    def _text(self, captions: Captions, attributes: Captions, rng: np.random.Generator) -> str | None:
        """A caption with an attribute; None where it has no words, or none in the stream's languages."""
        try:
            text = pick_caption(captions, rng, attributes, self.config.languages, self.config.code_switch)
            return pre_caption(text, self.text.max_tokens)
        except EmptyCaption:
            return None

    def _sample_id(self, text: str, number: int) -> int:
        """The row's own number, or one that all rows with the same text share."""
        if not self.config.equal_texts_match:
            return number
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1  # fits int64

    def collate(self, groups: list[list[Sample]], rngs: list[np.random.Generator]) -> dict[str, Tensor]:
        """Adds to the text tensors: image uint8 [B, 3, S, S], image_index int64 [R], patch_mask bool [R, N], target_box float32 [R, 4]
        (cx, cy, w, h as shares of the side), is_image bool [R]."""
        images = [sample.image for group in groups for sample in group]
        rows: list[PlacedRow] = []
        first_image = 0
        # images and rows of a batch are split into equally many groups, and len(group) of max_images is this group's share
        for number, (group, rng) in enumerate(zip(groups, rngs, strict=True)):
            share = self.rows_per_batch * len(group) // self.images_per_batch
            rows += choose_rows(group, share, number, first_image, rng)
            first_image += len(group)
        return {"image": image_tensor(images)} | self.text.tensors(rows) | self._region_tensors(rows)

    def _region_tensors(self, rows: list[PlacedRow]) -> dict[str, Tensor]:
        boxes = [placed.row.box for placed in rows]
        whole = np.ones((self.image_size // self.patch_size) ** 2, dtype=bool)
        masks = [whole if box is None else patch_mask(box, self.image_size, self.patch_size) for box in boxes]
        targets = [WHOLE_IMAGE if box is None else target_box(box, self.image_size) for box in boxes]
        return {
            "image_index": torch.tensor([placed.image for placed in rows], dtype=torch.int64),
            "patch_mask": torch.from_numpy(np.stack(masks)),
            "target_box": torch.tensor(targets, dtype=torch.float32),
            "is_image": torch.tensor([box is None for box in boxes]),
        }


def choose_rows(group: list[Sample], count: int, number: int, first_image: int, rng: np.random.Generator) -> list[PlacedRow]:
    """Exactly `count` rows of a group: a random subset, or all of them and some again.

    A repeated row keeps its sample_id, so that the two are not each other's negatives, and gets its own mask.

    Args:
        group: the samples, each with at least one row.
        count: rows wanted.
        number: of the group within the micro-batch.
        first_image: number of the group's first image within the micro-batch.
        rng: the group's generator.
    """
    rows = [PlacedRow(row, first_image + image, number, sample.rng) for image, sample in enumerate(group) for row in sample.rows]
    if len(rows) >= count:
        picks = np.sort(rng.permutation(len(rows))[:count])
    else:
        picks = np.sort(np.concatenate([np.arange(len(rows)), rng.integers(len(rows), size=count - len(rows))]))
    return [rows[pick] for pick in picks.tolist()]


def _usable_elements(record: Record, width: int, height: int, config: RegionTextStream) -> list[tuple[int, Box, dict[str, Any]]]:
    """(number, box, element) of the elements that have a box inside the image and a caption in one of the stream's languages."""
    elements = record.annotation.get("elems")
    usable: list[tuple[int, Box, dict[str, Any]]] = []
    faults: list[str] = []
    for number, element in enumerate(elements if isinstance(elements, list) else []):
        box = usable_box(element.get("bb"), width, height) if isinstance(element, dict) else None
        if box is None:
            shown = element.get("bb") if isinstance(element, dict) else element
            faults.append(f"box {shown} is empty or outside the image of {width} x {height} pixels")
        elif not _has_words(spoken(element.get(config.caption_key), config.languages)):
            faults.append(f"the caption of element {number} is empty")
        else:
            usable.append((number, box, element))
    if not usable:
        raise BadRecord(f"no element can be used ({faults[0] if faults else 'it has no elems'})")
    return usable


def _has_words(captions: Any) -> bool:
    return any(text.strip() for text in caption_texts(captions))


def _all_texts(record: Record, caption_key: str) -> list[str]:
    """Every text about the image: its captions, and those and the attributes of all its elements."""
    elements = record.annotation.get("elems")
    texts = caption_texts(record.annotation.get(caption_key))
    for element in elements if isinstance(elements, list) else []:
        if isinstance(element, dict):
            texts += caption_texts(element.get(caption_key)) + caption_texts(element.get("attributes"))
    return texts
