"""Boxes through crops, flips and resizes, and the patches a box covers (X2-VLM section on multi-grained alignment).

A box is (x, y, w, h) in pixels, the origin in the top left corner.
"""

import math
from dataclasses import dataclass

import numpy as np

Box = tuple[float, float, float, float]
Crop = tuple[int, int, int, int]
"""(x0, y0, x1, y1) in pixels, x1 and y1 exclusive."""


def usable_box(value: object, width: int, height: int, tolerance: float = 1.0) -> Box | None:
    """An annotated box as floats, or None where it is not a box of positive area inside the image.

    Args:
        value: what the annotation holds, [x, y, w, h].
        width, height: of the image.
        tolerance: pixels by which a box may stick out (annotations are rounded); such a box is cut to the image.
    """
    if not isinstance(value, list | tuple) or len(value) != 4 or not all(isinstance(part, int | float) for part in value):
        return None
    x, y, w, h = (float(part) for part in value)
    if not all(map(math.isfinite, (x, y, w, h))) or w <= 0 or h <= 0:
        return None
    if x < -tolerance or y < -tolerance or x + w > width + tolerance or y + h > height + tolerance:
        return None
    return intersect((x, y, w, h), (0, 0, width, height))


def intersect(box: Box, crop: Crop) -> Box | None:
    """The part of a box that lies in the crop, in the image's coordinates; None where that is empty."""
    x0, y0 = max(box[0], crop[0]), max(box[1], crop[1])
    x1, y1 = min(box[0] + box[2], crop[2]), min(box[1] + box[3], crop[3])
    return (x0, y0, x1 - x0, y1 - y0) if x1 > x0 and y1 > y0 else None


def visible_in_crop(box: Box, crop: Crop, min_visible: float) -> Box | None:
    """The box cut to the crop and in the crop's coordinates; None unless more than `min_visible` of its area is in the crop."""
    part = intersect(box, crop)
    if part is None or part[2] * part[3] <= min_visible * box[2] * box[3]:
        return None
    return shift_box(part, -crop[0], -crop[1])


def crop_keeping(box: Box, width: int, height: int, rng: np.random.Generator) -> Crop:
    """A random crop of the image that holds the whole box; every side is uniform over the whole pixels it may take."""
    x0 = int(rng.integers(0, math.floor(box[0]) + 1))
    y0 = int(rng.integers(0, math.floor(box[1]) + 1))
    x1 = int(rng.integers(min(math.ceil(box[0] + box[2]), width), width + 1))
    y1 = int(rng.integers(min(math.ceil(box[1] + box[3]), height), height + 1))
    return x0, y0, x1, y1


def shift_box(box: Box, dx: float, dy: float) -> Box:
    """The box moved by (dx, dy)."""
    return box[0] + dx, box[1] + dy, box[2], box[3]


def flip_box(box: Box, width: float) -> Box:
    """The box in the image of this width mirrored left to right."""
    return width - box[0] - box[2], box[1], box[2], box[3]


def scale_box(box: Box, x_factor: float, y_factor: float) -> Box:
    """The box after resizing the image by these factors."""
    return box[0] * x_factor, box[1] * y_factor, box[2] * x_factor, box[3] * y_factor


def target_box(box: Box, image_size: int) -> Box:
    """(centre x, centre y, width, height), each as a share of the square image's side."""
    return (box[0] + box[2] / 2) / image_size, (box[1] + box[3] / 2) / image_size, box[2] / image_size, box[3] / image_size


@dataclass(frozen=True)
class Placement:
    """How an image came to its square input: cropped, perhaps mirrored, then resized. Boxes follow it."""

    crop: Crop
    flipped: bool
    size: int
    """Side of the square in pixels."""

    def place(self, box: Box, min_visible: float) -> Box | None:
        """The box in pixels of the square; None unless more than `min_visible` of its area is in the crop."""
        visible = visible_in_crop(box, self.crop, min_visible)
        if visible is None:
            return None
        width, height = self.crop[2] - self.crop[0], self.crop[3] - self.crop[1]
        if self.flipped:
            visible = flip_box(visible, width)
        return scale_box(visible, self.size / width, self.size / height)


def patch_mask(box: Box, image_size: int, patch_size: int) -> np.ndarray:
    """The patches that a box touches, at least one.

    Args:
        box: in pixels of the square input image.
        image_size, patch_size: sides in pixels.

    Returns:
        bool [N], N = (image_size / patch_size)^2, rows first; the global token is not in it.
    """
    side = image_size // patch_size
    mask = np.zeros((side, side), dtype=bool)
    left, right = _patch_range(box[0], box[2], side, patch_size)
    top, bottom = _patch_range(box[1], box[3], side, patch_size)
    mask[top:bottom, left:right] = True
    return mask.reshape(-1)


def _patch_range(start: float, length: float, side: int, patch_size: int) -> tuple[int, int]:
    first = min(max(math.floor(start / patch_size), 0), side - 1)
    return first, min(max(math.ceil((start + length) / patch_size), first + 1), side)
