"""Objects with attributes, in the layout of OVAD (arXiv 2211.12914), as crops or as regions of whole images.

Shapes: B images, R objects, A attributes, N patches, S image side in pixels.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from common.errors import BadRecord, UserError
from dataset.boxes import Box, patch_mask, scale_box, usable_box
from dataset.streams.base import image_tensor
from dataset.transforms import read_image, squash

LEAST_AREA = 50.0
"""Pixels; the benchmark leaves out smaller objects."""


@dataclass(frozen=True)
class Attribute:
    """One attribute."""

    kind: str
    """Such as color."""
    words: tuple[str, ...]
    """Its name and synonyms."""
    verb: Literal["is", "has"]
    """What an object does with it."""
    group: str
    """head, medium or tail, by how often it occurs."""


@dataclass(frozen=True)
class PictureOfObjects:
    """An image and its objects."""

    file: str
    """Below the image folder."""
    width: int
    height: int
    boxes: tuple[Box, ...]
    """In pixels of the image."""
    labels: tuple[tuple[int, ...], ...]
    """[A] of each object: 1 it has the attribute, 0 it has not, -1 unknown."""


@dataclass(frozen=True)
class OvadFile:
    """What an annotation file says."""

    attributes: list[Attribute]
    pictures: list[PictureOfObjects]

    @property
    def labels(self) -> np.ndarray:
        """[R, A] of all objects, picture by picture."""
        return np.array([labels for picture in self.pictures for labels in picture.labels])


def read_ovad(file: Path) -> OvadFile:
    """Read an annotation file; objects of less than 50 pixels are left out, and images without any other.

    Raises:
        UserError: the file is missing or not of the layout of OVAD.
    """
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{file} does not exist. Write the data set first, or correct data.annotations.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as JSON ({error}).") from error
    missing = [key for key in ("images", "attributes", "annotations") if not isinstance(content, dict) or key not in content]
    if missing:
        raise UserError(f"{file}: no {', '.join(missing)}; it is not in the layout of OVAD.")
    attributes = [_attribute(file, number, given) for number, given in enumerate(content["attributes"])]
    return OvadFile(attributes, list(_pictures(file, content, len(attributes))))


def _attribute(file: Path, number: int, given: dict[str, Any]) -> Attribute:
    try:
        kind, words = given["name"].split(":")
        verb, place = given["is_has_att"], given["id"]
    except (KeyError, ValueError, AttributeError) as error:
        raise UserError(f"{file}, attribute {number}: needs id, name as type:word/synonym, and is_has_att.") from error
    if place != number or verb not in ("is", "has"):
        raise UserError(f"{file}, attribute {number}: id is {place}, is_has_att is {verb}; ids count from 0, and it is is or has.")
    return Attribute(kind, tuple(words.split("/")), verb, str(given.get("freq_set", "")))


def _pictures(file: Path, content: dict[str, Any], count: int) -> Iterator[PictureOfObjects]:
    objects: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for annotation in content["annotations"]:
        if annotation.get("area", annotation["bbox"][2] * annotation["bbox"][3]) >= LEAST_AREA:
            objects[annotation["image_id"]].append(annotation)
    for image in content["images"]:
        boxes, labels = [], []
        for annotation in objects.pop(image["id"], ()):
            where, box = f"{file}, annotation {annotation['id']}", usable_box(annotation["bbox"], image["width"], image["height"])
            if box is None:
                raise UserError(f"{where}: bbox is {annotation['bbox']}, which is no box in {image['width']} x {image['height']} pixels.")
            if len(annotation["att_vec"]) != count:
                raise UserError(f"{where}: att_vec has {len(annotation['att_vec'])} numbers for {count} attributes.")
            boxes.append(box)
            labels.append(tuple(annotation["att_vec"]))
        if boxes:
            yield PictureOfObjects(image["file_name"], image["width"], image["height"], tuple(boxes), tuple(labels))
    if objects:
        raise UserError(f"{file}: objects of image {next(iter(objects))}, which images does not have.")


class PictureItem(TypedDict):
    """One image, or its objects cut out."""

    images: list[np.ndarray]
    """uint8 [S, S, 3]: the whole image, or a crop of each object."""
    patch_masks: list[np.ndarray]
    """bool [N] of each object; none with crops."""


class OvadSet(Dataset[PictureItem]):
    """The images of a file.

    Args:
        pictures: images and boxes.
        image_root: the folder that their names are relative to.
        image_size, patch_size: of the model's input, in pixels.
        protocol: crop: each object is cut out and squashed to the input, as published. region: whole images, and the patches of objects.
    """

    def __init__(
        self, pictures: Sequence[PictureOfObjects], image_root: Path, image_size: int, patch_size: int, protocol: Literal["crop", "region"]
    ) -> None:
        self.pictures, self.image_root, self.protocol = pictures, image_root, protocol
        self.image_size, self.patch_size = image_size, patch_size

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> PictureItem:
        picture = self.pictures[index]
        try:
            image = read_image(self.image_root / picture.file)
        except BadRecord as error:
            raise UserError(f"data.image_root: {error}.") from error
        if self.protocol == "crop":
            return {"images": [self._crop(image, box) for box in picture.boxes], "patch_masks": []}
        x, y = self.image_size / picture.width, self.image_size / picture.height
        masks = [patch_mask(scale_box(box, x, y), self.image_size, self.patch_size) for box in picture.boxes]
        return {"images": [squash(image, self.image_size)], "patch_masks": masks}

    def _crop(self, image: Image.Image, box: Box) -> np.ndarray:
        """Whole pixels, rounded down, and resized bilinearly: the benchmark's own way."""
        x, y, width, height = (int(value) for value in box)
        crop = image.crop((x, y, x + max(width, 1), y + max(height, 1)))
        return np.asarray(crop.resize((self.image_size, self.image_size), Image.Resampling.BILINEAR))


def collate_pictures(items: list[PictureItem]) -> dict[str, Tensor]:
    """image uint8 [B, 3, S, S]: crops, or whole images; of these also image_index int64 [R] and patch_mask bool [R, N]."""
    tensors = {"image": image_tensor([image for item in items for image in item["images"]])}
    masks = [mask for item in items for mask in item["patch_masks"]]
    if masks:
        index = [number for number, item in enumerate(items) for _ in item["patch_masks"]]
        tensors |= {"image_index": torch.tensor(index), "patch_mask": torch.from_numpy(np.stack(masks))}
    return tensors
