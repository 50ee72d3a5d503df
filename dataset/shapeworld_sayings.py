"""What a caption of the embedded data set says, in no language yet: the same saying is worded in each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dataset.shapeworld_refer import Description
from dataset.shapeworld_scene import Background, Scene, pick
from dataset.shapeworld_text import in_common, mentioned, related_pairs, sharing, shuffled

DETAIL = 0.6
"""How often size or texture of an object is said though its colour and shape would do."""


@dataclass(frozen=True)
class Saying:
    """One sentence about a whole scene. What it does not say is empty; all of it is true of the scene."""

    total: int | None = None
    """How many objects there are."""
    relations: tuple[tuple[Description, str, Description], ...] = ()
    """One object, its relation to another, the other."""
    things: tuple[tuple[Description, int], ...] = ()
    """Objects, and groups of so many that are alike."""
    ground: Background | None = None


def sayings(scene: Scene, rng: np.random.Generator) -> list[Saying]:
    """Five of them, one of each kind, in random order."""
    kinds: list[Callable[[Scene, np.random.Generator], Saying]] = [_listing, _totalling, _counting, _relating, _relating_and_rest]
    return [kinds[place](scene, rng) for place in rng.permutation(len(kinds))]


def _things(scene: Scene, indices: list[int], rng: np.random.Generator) -> tuple[tuple[Description, int], ...]:
    return tuple((mentioned(scene, index, rng, DETAIL), 1) for index in indices)


def _listing(scene: Scene, rng: np.random.Generator) -> Saying:
    """Every object, and the ground."""
    return Saying(things=_things(scene, shuffled(scene, rng), rng), ground=scene.background)


def _totalling(scene: Scene, rng: np.random.Generator) -> Saying:
    """The total, and every object."""
    return Saying(total=len(scene.objects), things=_things(scene, shuffled(scene, rng), rng))


def _counting(scene: Scene, rng: np.random.Generator) -> Saying:
    """One group by its number and the others one by one, on their ground."""
    groups = sharing(scene)
    if not groups:
        return _totalling(scene, rng)
    _, members = pick(rng, groups)
    rest = [index for index in shuffled(scene, rng) if index not in members]
    return Saying(things=((in_common(scene, members), len(members)), *_things(scene, rest, rng)), ground=scene.background)


def _relating(scene: Scene, rng: np.random.Generator) -> Saying:
    """Two pairs in their relations; one and the rest where there are not two."""
    pairs = related_pairs(scene, rng)[:2]
    if len(pairs) < 2:
        return _relating_and_rest(scene, rng)
    return Saying(relations=tuple(_relation(scene, pair, rng) for pair in pairs))


def _relating_and_rest(scene: Scene, rng: np.random.Generator) -> Saying:
    """One pair in its relation, and the others by name."""
    pairs = related_pairs(scene, rng)[:1]
    if not pairs:
        return _listing(scene, rng)
    rest = [index for index in shuffled(scene, rng) if index not in pairs[0][:2]]
    return Saying(relations=(_relation(scene, pairs[0], rng),), things=_things(scene, rest, rng))


def _relation(scene: Scene, pair: tuple[int, int, str], rng: np.random.Generator) -> tuple[Description, str, Description]:
    first, second, name = pair
    return mentioned(scene, first, rng, DETAIL), name, mentioned(scene, second, rng, DETAIL)
