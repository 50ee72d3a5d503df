"""Random scenes: a pure function of (seed, split, index)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dataset.shapeworld_draw import Mask, footprint, object_mask, tight_box
from dataset.shapeworld_scene import (
    ATTRIBUTES,
    BACKGROUNDS,
    COLORS,
    RGB,
    SHADES,
    SHAPES,
    SIZES,
    TEXTURES,
    Background,
    Scene,
    SceneObject,
    pick,
    scene_rng,
)

OBJECT_COUNTS = (3, 3, 4)
RADII = {"small": (0.16, 0.175), "large": (0.215, 0.24)}  # as shares of the side: about 16 and 22 pixels across at 48
DISTRACTOR_SHARE = 0.15  # of objects after the first that resemble an earlier one on purpose
MIN_VISIBLE = 0.75  # of every object
MAX_OVERLAP = 0.3  # the share of a later object that may lie on earlier ones, so that none hides inside another
MARGIN = 0.01
PLACEMENT_GRID = 96  # who covers whom is decided at this size, whatever the picture's, so that a scene looks alike at any size
PLACEMENT_TRIES = 40
VALUES = {"shape": SHAPES, "color": COLORS, "texture": ("plain", "plain", *TEXTURES), "size": SIZES}  # three in five objects are plain


def make_scene(seed: int, split: str, index: int, size: int = 48) -> Scene:
    """Scene `index` of a split. Its look does not depend on `size`, the side of the picture in pixels."""
    rng = scene_rng(seed, split, index, "scene")
    background = _sample_background(rng)
    while True:
        objects = _place([_sample_look(rng, look) for look in _sample_attributes(rng)], rng)
        if objects is not None:
            break
    boxed = tuple(replace(item, box=tight_box(object_mask(item, size))) for item in objects)
    return Scene(size, boxed, background)


def _sample_attributes(rng: np.random.Generator) -> list[tuple[str, ...]]:
    """Attribute values of every object, no two alike, many of them differing from another object in one or two values only."""
    looks: list[tuple[str, ...]] = []
    count = pick(rng, OBJECT_COUNTS)
    while len(looks) < count:
        look = [pick(rng, VALUES[name]) for name in ATTRIBUTES]
        if looks and rng.random() < DISTRACTOR_SHARE:
            changed = rng.permutation(len(ATTRIBUTES))[: int(rng.integers(1, 3))]
            model = pick(rng, looks)
            look = [value if place in changed else model[place] for place, value in enumerate(look)]
        if tuple(look) not in looks:
            looks.append(tuple(look))
    return looks


def _sample_look(rng: np.random.Generator, look: tuple[str, ...]) -> SceneObject:
    """An object with these attributes, still without a place."""
    shape, color, texture, size = look
    radius = float(rng.uniform(*RADII[size]))
    return SceneObject(shape, color, texture, size, (0.5, 0.5), radius, float(rng.uniform(-0.15, 0.15)), (0, 0, 1, 1))


def _place(items: list[SceneObject], rng: np.random.Generator) -> list[SceneObject] | None:
    """Put the objects one over the other so that enough of each stays visible; None where no place was found."""
    placed: list[SceneObject] = []
    grounds: list[Mask] = []
    visible: list[Mask] = []
    for item in items:
        reach = 1.12 * item.radius + MARGIN
        for _ in range(PLACEMENT_TRIES):
            x, y = rng.uniform(reach, 1 - reach, size=2)
            moved = replace(item, center=(float(x), float(y)))
            ground = footprint(moved, PLACEMENT_GRID)
            left = [seen & ~ground for seen in visible]
            if _clear(ground, grounds, left):
                placed.append(moved)
                grounds.append(ground)
                visible = [*left, ground]
                break
        else:
            return None
    return placed


def _clear(ground: Mask, grounds: list[Mask], visible: list[Mask]) -> bool:
    """Whether a new object on `ground` hides too little of the earlier ones, of which `visible` would remain, to matter."""
    if any(np.count_nonzero(ground & earlier) > MAX_OVERLAP * np.count_nonzero(ground) for earlier in grounds):
        return False
    pairs = zip(visible, grounds, strict=True)
    return all(np.count_nonzero(seen) >= MIN_VISIBLE * np.count_nonzero(whole) for seen, whole in pairs)


def _sample_background(rng: np.random.Generator) -> Background:
    kind, shade = pick(rng, BACKGROUNDS), pick(rng, SHADES)
    low, high = (65, 95) if shade == "dark" else (150, 190)
    spread = {"plain": 0, "gradient": 40, "noisy": 30, "checkered": 24}[kind]
    away = 1 if shade == "dark" else -1  # the second tone goes towards the middle greys

    def tone(level: float) -> RGB:
        red, green, blue = (int(np.clip(level + rng.uniform(-8, 8), 0, 255)) for _ in range(3))
        return red, green, blue

    level = float(rng.uniform(low, high))
    colors = tone(level), tone(level + away * spread)
    angle, cell = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(1 / 8, 1 / 5))
    return Background(kind, shade, colors, angle, cell, int(rng.integers(2**31)))
