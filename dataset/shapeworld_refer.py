"""What an expression about a scene means, apart from any wording: descriptions, places, relations, and whom they single out.

Two readings of every comparison are kept apart. The *strict* one is plain to see (well to the left, and more to the left than
above); expressions are chosen by it. The *loose* one is whatever a reader could still accept; an expression counts as
unambiguous only when no other object fits even loosely.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dataset.shapeworld_scene import ATTRIBUTES, Scene, SceneObject, pick

RELATIONS = ("left_of", "right_of", "above", "below")
EXTREMES = ("leftmost", "rightmost", "highest", "lowest", "largest", "smallest")
NAMED_SHARE = 0.85  # of expressions by attributes that say both colour and shape
PLAIN_DISTANCE = 0.09  # between middles, as a share of the image side (4.3 of 48 pixels)
PLAIN_LEAD = 0.07  # by which an extreme object leads the next
PLAIN_RATIO = 1.25  # of box areas' square roots
EVERYTHING = (1 << len(ATTRIBUTES)) - 1
SUBSETS = tuple(sum(1 << said for said in range(EVERYTHING + 1) if not said & ~common) for common in range(EVERYTHING + 1))
"""For every set of attributes, as bits: which sets it holds, as a bit each."""
SHAPE_BIT, COLOR_BIT, TEXTURE_BIT, SIZE_BIT = (1 << ATTRIBUTES.index(name) for name in ("shape", "color", "texture", "size"))


@dataclass(frozen=True)
class Description:
    """Attributes that are said of an object; None is not said."""

    shape: str | None = None
    color: str | None = None
    texture: str | None = None
    size: str | None = None

    def fits(self, item: SceneObject) -> bool:
        """Whether the object has all that is said."""
        return (
            (self.shape is None or self.shape == item.shape)
            and (self.color is None or self.color == item.color)
            and (self.texture is None or self.texture == item.texture)
            and (self.size is None or self.size == item.size)
        )


@dataclass(frozen=True)
class Reference:
    """An expression that points at one object: a description, and perhaps an extreme or a relation to another object."""

    description: Description
    extreme: str | None = None
    relation: str | None = None
    anchor: Description | None = None

    @property
    def kind(self) -> str:
        """One of "attributes", "extreme" and "relation"."""
        return "extreme" if self.extreme else "relation" if self.relation else "attributes"


def describe(item: SceneObject, said: int) -> Description:
    """The description that says the attributes whose bits are set, in the order of `ATTRIBUTES`."""
    values = (value if said >> bit & 1 else None for bit, value in enumerate(item.attributes()))
    return Description(*values)


def holds(relation: str, a: SceneObject, b: SceneObject, size: int, strict: bool) -> bool:
    """Whether `a` stands in a relation to `b` in a picture of `size` pixels."""
    (ax, ay), (bx, by) = a.middle(), b.middle()
    along, across = {
        "left_of": (bx - ax, by - ay),
        "right_of": (ax - bx, by - ay),
        "above": (by - ay, bx - ax),
        "below": (ay - by, bx - ax),
    }[relation]
    return along >= PLAIN_DISTANCE * size and along >= 1.2 * abs(across) if strict else along > 0


def fitting(scene: Scene, description: Description) -> tuple[int, ...]:
    """Indices of all objects that a description fits."""
    return tuple(index for index, item in enumerate(scene.objects) if description.fits(item))


def resolve(scene: Scene, reference: Reference) -> tuple[int, ...]:
    """Indices of all objects that an expression could mean, read loosely: one index where it is unambiguous."""
    found = fitting(scene, reference.description)
    if reference.extreme is not None:
        ranks = {index: _rank(reference.extreme, scene.objects[index]) for index in found}
        lead = _lead(reference.extreme, scene.size)
        return tuple(index for index in found if ranks[index] > max(ranks.values()) - lead)
    if reference.relation is not None and reference.anchor is not None:
        relation, anchors = reference.relation, fitting(scene, reference.anchor)
        return tuple(a for a in found if any(b != a and _holds(scene, relation, a, b, strict=False) for b in anchors))
    return found


def unique_descriptions(scene: Scene, target: int) -> list[int]:
    """Every choice of said attributes, as bits, that fits the target alone."""
    shared = 0
    for index, item in enumerate(scene.objects):
        if index != target:
            shared |= SUBSETS[_common(item, scene.objects[target])]
    return [said for said in range(1, EVERYTHING + 1) if not shared >> said & 1]


def refer_by_attributes(scene: Scene, target: int, rng: np.random.Generator) -> Reference | None:
    """Attributes that single the target out, mostly its colour and shape among them, as people say it; None where none do."""
    telling = [said for said in unique_descriptions(scene, target) if said.bit_count() > 1 and said & (SHAPE_BIT | COLOR_BIT)]
    named = [said for said in telling if said & SHAPE_BIT and said & COLOR_BIT]
    choice = named if named and rng.random() < NAMED_SHARE else telling
    return Reference(describe(scene.objects[target], pick(rng, choice))) if choice else None


def refer_by_extreme(scene: Scene, target: int, rng: np.random.Generator) -> Reference | None:
    """An extreme among the objects that fit a description which alone would not do; None where there is none."""
    said = _ambiguous(scene, target)
    for choice in rng.permutation(len(said) * len(EXTREMES)):
        description = describe(scene.objects[target], said[choice // len(EXTREMES)])
        reference = Reference(description, extreme=EXTREMES[choice % len(EXTREMES)])
        by_size = reference.extreme in ("largest", "smallest")
        if not (by_size and description.size) and resolve(scene, reference) == (target,):
            return reference
    return None


def refer_by_relation(scene: Scene, target: int, rng: np.random.Generator) -> Reference | None:
    """A relation to an anchor that its own description singles out, for a target whose description alone would not do."""
    said = _ambiguous(scene, target)
    for choice in rng.permutation(len(said) * len(scene.objects)):
        index = int(choice) // len(said)
        relations = [name for name in RELATIONS if index != target and _holds(scene, name, target, index, strict=True)]
        named = [bits for bits in unique_descriptions(scene, index) if bits & SHAPE_BIT and bits.bit_count() <= 2]
        if relations and named:
            description = describe(scene.objects[target], said[choice % len(said)])
            anchor = describe(scene.objects[index], pick(rng, named))
            reference = Reference(description, relation=pick(rng, relations), anchor=anchor)
            if resolve(scene, reference) == (target,):
                return reference
    return None


def _ambiguous(scene: Scene, target: int) -> list[int]:
    """Choices of at most two said attributes that fit the target and at least one other object; 0 says nothing."""
    unique = set(unique_descriptions(scene, target))
    return [said for said in range(EVERYTHING + 1) if said not in unique and said.bit_count() <= 2]


def _common(a: SceneObject, b: SceneObject) -> int:
    """Bits of the attributes in which two objects agree."""
    return sum(1 << bit for bit, (x, y) in enumerate(zip(a.attributes(), b.attributes(), strict=True)) if x == y)


def _holds(scene: Scene, relation: str, a: int, b: int, strict: bool) -> bool:
    return holds(relation, scene.objects[a], scene.objects[b], scene.size, strict)


def _rank(extreme: str, item: SceneObject) -> float:
    """A number that is greatest for the object the extreme means."""
    x, y = item.middle()
    extent = float(np.log(item.box[2] * item.box[3]) / 2)
    return {"leftmost": -x, "rightmost": x, "highest": -y, "lowest": y, "largest": extent, "smallest": -extent}[extreme]


def _lead(extreme: str, size: int) -> float:
    """What the extreme object must be ahead of the next to be beyond doubt."""
    return float(np.log(PLAIN_RATIO)) if extreme in ("largest", "smallest") else PLAIN_LEAD * size
