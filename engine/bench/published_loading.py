"""The published code's way from JSON-lines files to batches, re-enacted from its description so that it can be measured.

Lines are read one after the other; an image is base64 text in its line, decoded in full with Pillow, cropped and resized by torchvision,
changed by RandAugment and normalised to floats on the host; every text is tokenized by itself and padded to the full length.

It is not slowed down anywhere: RandAugment's operations, masking and the tokenizer are this project's, which are faster than the
originals (the published tokenizer and masking are pure Python).
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.compat import ensure_torchvision
from common.labels import IGNORED
from dataset.boxes import Box, Placement, crop_keeping, patch_mask, target_box
from dataset.config import ImageTextStream, MaskingConfig, RegionTextStream
from dataset.masking import MaskVocabulary, mask_tokens
from dataset.rand_augment import BOX_OPERATIONS, IMAGE_OPERATIONS, Operation, rand_augment
from dataset.streams.region_text import WHOLE_IMAGE
from dataset.text import EmptyCaption, caption_texts, names_a_side, pick_caption, pre_caption
from models.vision.normalize import CLIP_MEAN, CLIP_STD

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Row = dict[str, Any]
"""What one text brings to a batch: lists of numbers by name."""


@dataclass(frozen=True)
class PublishedText:
    """Makes the numbers of one text."""

    tokenizer: PreTrainedTokenizerBase
    vocabulary: MaskVocabulary
    max_tokens: int
    masking: MaskingConfig

    def row(self, text: str, rng: np.random.Generator) -> Row | None:
        """Ids, mask, masked ids, positions and labels, each padded to its greatest length; None for a text without words."""
        try:
            text = pre_caption(text, self.max_tokens)
        except EmptyCaption:
            return None
        tokenizer, length = self.tokenizer, self.max_tokens
        tokens = [str(tokenizer.cls_token), *tokenizer.tokenize(text)[: length - 2], str(tokenizer.sep_token)]
        ids = tokenizer.convert_tokens_to_ids(tokens)
        assert isinstance(ids, list), "the ids of a list of tokens"
        masked = mask_tokens(ids, self.vocabulary, self.masking, rng)
        bare, unmasked = length - len(ids), self.masking.max_masks - len(masked.positions)
        padding = [tokenizer.pad_token_id]
        return {
            "text_ids": ids + padding * bare,
            "text_mask": [1] * len(ids) + [0] * bare,
            "text_ids_masked": masked.ids + padding * bare,
            "masked_positions": masked.positions + [0] * unmasked,
            "mlm_labels": masked.labels + [IGNORED] * unmasked,
        }


class PublishedTransform:
    """Pillow image to normalised float tensor, with torchvision.

    Args:
        size: side of the result in pixels.
        crop_scale: shares of the area that a random crop keeps; None: no crop here.
        operations: of RandAugment, empty for none.
    """

    def __init__(self, size: int, crop_scale: tuple[float, float] | None, operations: Sequence[Operation]) -> None:
        ensure_torchvision()
        from torchvision import transforms
        from torchvision.transforms import InterpolationMode

        self.size = size
        self.operations = operations
        cubic = InterpolationMode.BICUBIC
        whole = transforms.Resize((size, size), interpolation=cubic)
        self.resize = whole if crop_scale is None else transforms.RandomResizedCrop(size, scale=crop_scale, interpolation=cubic)
        self.finish = transforms.Compose([transforms.ToTensor(), transforms.Normalize(CLIP_MEAN, CLIP_STD)])

    def __call__(self, image: Image.Image, flip: bool, rng: np.random.Generator) -> Tensor:
        """float32 [3, S, S]. The crop draws from PyTorch's generator, everything else from `rng`."""
        image = self.resize(image)
        if flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = np.array(image)
        pixels = self.finish(rand_augment(pixels, self.operations, rng) if self.operations else pixels)
        assert isinstance(pixels, Tensor), "what ToTensor gives"
        return pixels


class PublishedImages:
    """Batches of images with captions.

    Args:
        files: JSON lines with the image as base64 text.
        config: names of keys, augmentation.
        text: makes the numbers of texts.
        image_size: side of the model's input in pixels.
    """

    def __init__(self, files: Sequence[Path], config: ImageTextStream, text: PublishedText, image_size: int) -> None:
        self.lines = endless_lines(files)
        self.config = config
        self.text = text
        augmentation = config.augmentation
        self.transform = PublishedTransform(image_size, augmentation.crop_scale, IMAGE_OPERATIONS if augmentation.rand_augment else ())

    def batch(self, images: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """The next samples as float32 [B, 3, S, S] and int64 text tensors [B, ...]."""
        samples = [self._sample(rng) for _ in range(images)]
        return {"image": torch.stack([image for image, _ in samples])} | as_tensors([row for _, row in samples if row is not None])

    def _sample(self, rng: np.random.Generator) -> tuple[Tensor, Row | None]:
        annotation = json.loads(next(self.lines))
        image = decoded(annotation[self.config.image_key])
        captions = annotation[self.config.caption_key]
        augmentation = self.config.augmentation
        may_flip = not (augmentation.careful_flip and names_a_side(caption_texts(captions)))
        pixels = self.transform(image, rng.random() < augmentation.flip and may_flip, rng)
        return pixels, self.text.row(pick_caption(captions, rng), rng)


class PublishedRegions:
    """Batches of images with described boxes.

    Args: as `PublishedImages`, and
        patch_size: of the model, in pixels.
    """

    def __init__(self, files: Sequence[Path], config: RegionTextStream, text: PublishedText, image_size: int, patch_size: int) -> None:
        self.lines = endless_lines(files)
        self.config = config
        self.text = text
        self.image_size, self.patch_size = image_size, patch_size
        self.transform = PublishedTransform(image_size, None, BOX_OPERATIONS if config.augmentation.rand_augment else ())

    def batch(self, images: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """The next samples as float32 [B, 3, S, S] and tensors of exactly the wanted share of rows."""
        samples = [self._sample(rng) for _ in range(images)]
        rows = [row | {"image_index": number} for number, (_, found) in enumerate(samples) for row in found]
        wanted = self.config.batch_size * images // self.config.max_images
        picks = rng.permutation(len(rows))[:wanted] if len(rows) >= wanted else rng.integers(len(rows), size=wanted)
        return {"image": torch.stack([image for image, _ in samples])} | as_tensors([rows[pick] for pick in sorted(picks.tolist())])

    def _sample(self, rng: np.random.Generator) -> tuple[Tensor, list[Row]]:
        annotation = json.loads(next(self.lines))
        image = decoded(annotation[self.config.image_key])
        elements = annotation["elems"]
        keep = elements[int(rng.integers(len(elements)))]["bb"]
        augmentation = self.config.augmentation
        width, height = image.size
        crop = crop_keeping(inside(keep, width, height), width, height, rng) if augmentation.crop else (0, 0, width, height)
        flip = rng.random() < augmentation.flip
        if augmentation.careful_flip and any(names_a_side(caption_texts(element[self.config.caption_key])) for element in elements):
            flip = False
        image = image.crop(crop)
        if flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = self.transform(image, flip=False, rng=rng)
        caption = annotation.get(self.config.caption_key) if self.config.image_caption else None
        return pixels, self._rows(caption, elements, Placement(crop, flip, self.image_size), (width, height), rng)

    def _rows(
        self, caption: Any, elements: list[dict[str, Any]], placement: Placement, size: tuple[int, int], rng: np.random.Generator
    ) -> list[Row]:
        rows: list[Row] = []
        row = self.text.row(pick_caption(caption, rng), rng) if caption else None
        if row is not None:
            rows.append(row | {"patch_mask": [True] * (self.image_size // self.patch_size) ** 2, "target_box": WHOLE_IMAGE, "is_image": 1})
        for number in rng.permutation(len(elements)).tolist():
            element = elements[number]
            box = placement.place(inside(element["bb"], *size), self.config.min_visible)
            if box is None:
                continue
            row = self.text.row(pick_caption(element[self.config.caption_key], rng, element.get("attributes")), rng)
            if row is not None:
                mask = patch_mask(box, self.image_size, self.patch_size).tolist()
                rows.append(row | {"patch_mask": mask, "target_box": target_box(box, self.image_size), "is_image": 0})
            if len(rows) == self.config.max_regions:
                break
        return rows


def endless_lines(files: Sequence[Path]) -> Iterator[str]:
    """The lines of the files one after the other, again and again."""
    while True:
        for path in files:
            with path.open(encoding="utf-8") as file:
                yield from file


def decoded(text: str) -> Image.Image:
    """A base64 image in full resolution, RGB."""
    return Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")


def inside(box: Sequence[float], width: int, height: int) -> Box:
    """A box in whole pixels, as the published code casts it, cut to the image."""
    x, y, w, h = (int(value) for value in box)
    x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
    return x, y, max(1, min(w, width - x)), max(1, min(h, height - y))


def as_tensors(rows: Sequence[Row]) -> dict[str, Tensor]:
    """One tensor for each name, made from the rows' lists."""
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}
