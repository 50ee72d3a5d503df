"""What a scene of the embedded data set is: plain facts from which pictures and texts are derived.

A scene says everything there is to know about a picture. Drawing, captions, region phrases and referring expressions only read
it, so another kind of text (or another language) is one more module that reads a `Scene`.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLORS = ("red", "green", "blue", "yellow", "purple", "cyan")
TEXTURES = ("plain", "striped", "dotted")
SIZES = ("small", "large")
BACKGROUNDS = ("plain", "gradient", "noisy", "checkered")
SHADES = ("dark", "light")
ATTRIBUTES = ("shape", "color", "texture", "size")

Box = tuple[int, int, int, int]
"""x, y, width, height in whole pixels, origin at the top left."""
RGB = tuple[int, int, int]
T = TypeVar("T")


@dataclass(frozen=True)
class SceneObject:
    """One object. Lengths are shares of the image side, so that they hold at any picture size; only `box` is in pixels."""

    shape: str
    color: str
    texture: str
    size: str
    center: tuple[float, float]
    """x, y of the shape's own centre, before rotation."""
    radius: float
    angle: float
    """Rotation in radians."""
    box: Box
    """Tight box of the whole drawn extent, covered parts included."""

    def attributes(self) -> tuple[str, str, str, str]:
        """The values in the order of `ATTRIBUTES`."""
        return self.shape, self.color, self.texture, self.size

    def middle(self) -> tuple[float, float]:
        """x, y of the box's middle in pixels: where the object is when places are compared."""
        x, y, w, h = self.box
        return x + w / 2, y + h / 2


@dataclass(frozen=True)
class Background:
    """What lies behind the objects."""

    kind: str
    shade: str
    colors: tuple[RGB, RGB]
    """The two tones; a plain background uses the first alone."""
    angle: float
    """Direction of a gradient, in radians."""
    cell: float
    """Side of a checker field, as a share of the image side."""
    noise_seed: int


@dataclass(frozen=True)
class Scene:
    """A picture of `size` x `size` pixels. Objects are in drawing order: a later one covers an earlier one."""

    size: int
    objects: tuple[SceneObject, ...]
    background: Background


def scene_rng(seed: int, split: str, index: int, purpose: str) -> np.random.Generator:
    """The generator of one purpose ("scene", "captions", ...) of one scene.

    Every purpose has its own, so a new kind of text leaves all other texts and pictures as they were.
    """
    words = [seed, zlib.crc32(split.encode()), index, zlib.crc32(purpose.encode())]
    return np.random.default_rng(np.random.SeedSequence(words))


def picture_path(split: str, index: int) -> str:
    """Where a scene's picture lies, relative to OUT/images."""
    return f"{split}/{split}-{index:06d}.png"


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of the options, all equally likely."""
    return options[int(rng.integers(len(options)))]
