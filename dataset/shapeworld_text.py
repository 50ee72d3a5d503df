"""Captions, region phrases and referring expressions of a scene, each a function of the scene and a generator."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np

from dataset.shapeworld_draw import object_mask, tight_box
from dataset.shapeworld_refer import (
    COLOR_BIT,
    EVERYTHING,
    RELATIONS,
    SHAPE_BIT,
    SIZE_BIT,
    TEXTURE_BIT,
    Description,
    Reference,
    describe,
    fitting,
    holds,
    refer_by_attributes,
    refer_by_extreme,
    refer_by_relation,
    resolve,
    unique_descriptions,
)
from dataset.shapeworld_scene import Box, Scene, SceneObject, pick
from dataset.shapeworld_words import (
    NUMBERS,
    background_phrase,
    expression,
    group_phrase,
    indefinite,
    noun_phrase,
    relation_words,
)

EXPRESSION_SHARES = {"attributes": 0.88, "extreme": 0.06, "relation": 0.06}
HALVES = {"left": ("left half",), "right": ("right half",), "top": ("top half", "upper half"), "bottom": ("bottom half", "lower half")}


def captions(scene: Scene, rng: np.random.Generator) -> list[str]:
    """Five sentences about the whole picture, one of each style, in random order. All of them are true of the scene."""
    styles: list[Callable[[Scene, np.random.Generator], str]] = [_listing, _picture_of, _counting, _relating, _relating_and_rest]
    return [styles[place](scene, rng) for place in rng.permutation(len(styles))]


def expressions(scene: Scene, count: int, rng: np.random.Generator) -> list[tuple[int, Reference, str]]:
    """At most `count` referring expressions for as many different objects: index of the object, meaning, wording."""
    found = []
    for target in rng.permutation(len(scene.objects))[:count]:
        reference = refer(scene, int(target), rng)
        found.append((int(target), reference, expression(reference, rng)))
    return found


def refer(scene: Scene, target: int, rng: np.random.Generator) -> Reference:
    """An expression that means the target and nothing else; of a random kind among those the scene allows."""
    makers = {"attributes": refer_by_attributes, "extreme": refer_by_extreme, "relation": refer_by_relation}
    first = str(rng.choice(list(EXPRESSION_SHARES), p=list(EXPRESSION_SHARES.values())))
    for kind in dict.fromkeys((first, *makers)):
        reference = makers[kind](scene, target, rng)
        if reference is not None and resolve(scene, reference) == (target,):
            return reference
    return Reference(describe(scene.objects[target], EVERYTHING))  # no two objects are alike in everything


def region_elements(scene: Scene, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Region phrases with boxes: every object, and most often a group, a part or an expression.

    Returns:
        {"bb": [x, y, w, h] in pixels, "caption": str or list of paraphrases, "attributes": list, optional}. Any attribute may be
        put before the caption, and with it the phrase singles out its object. "attributes" never holds "left" or "right".
    """
    elements = [_object_element(scene, index, rng) for index in range(len(scene.objects))]
    elements += _group_elements(scene, rng)
    large = [index for index, item in enumerate(scene.objects) if item.size == "large"]
    if large and rng.random() < 0.5:
        elements.append(_part_element(scene, pick(rng, large), rng))
    target = int(rng.integers(len(scene.objects)))
    maker = pick(rng, (refer_by_extreme, refer_by_relation))
    reference = maker(scene, target, rng)
    if reference is not None:
        elements.append({"bb": list(scene.objects[target].box), "caption": expression(reference, rng)})
    return elements


def _object_element(scene: Scene, index: int, rng: np.random.Generator) -> dict[str, Any]:
    """One object, in whole phrases or as attributes beside a noun."""
    item, unique = scene.objects[index], unique_descriptions(scene, index)
    element: dict[str, Any] = {"bb": list(item.box)}
    if rng.random() < 0.5:
        named = [said for said in unique if said & SHAPE_BIT and said & COLOR_BIT]
        first, second = (noun_phrase(describe(item, pick(rng, named)), rng) for _ in range(2))
        element["caption"] = [first, second] if first != second else first
        return element
    noun = SHAPE_BIT | COLOR_BIT
    rest = [said for said in range(1, EVERYTHING + 1) if not said & noun and said | noun in unique]
    element["caption"] = noun_phrase(describe(item, noun), rng)
    element["attributes"] = [_adjectives(item, said) for said in rest]
    return element


def _adjectives(item: SceneObject, said: int) -> str:
    bits = ((SIZE_BIT, item.size), (TEXTURE_BIT, item.texture), (COLOR_BIT, item.color))
    return " ".join(value for bit, value in bits if said & bit)


def sharing(scene: Scene) -> list[tuple[Description, tuple[int, ...]]]:
    """What two or more objects, but not all of them, have in common: one value of shape, colour or texture."""
    found: dict[Description, tuple[int, ...]] = {}
    for item in scene.objects:
        for said in (SHAPE_BIT, COLOR_BIT, TEXTURE_BIT):
            description = describe(item, said)
            members = fitting(scene, description)
            if 2 <= len(members) < len(scene.objects):
                found[description] = members
    return list(found.items())


def _group_elements(scene: Scene, rng: np.random.Generator) -> list[dict[str, Any]]:
    """One group with the box around all its members; none where nothing is shared."""
    found = sharing(scene)
    if not found:
        return []
    description, members = pick(rng, found)
    box = union([scene.objects[index].box for index in members])
    return [{"bb": list(box), "caption": group_phrase(description, len(members), rng)}]


def _part_element(scene: Scene, index: int, rng: np.random.Generator) -> dict[str, Any]:
    """Half of an object, its box tight around what the object has there."""
    item = scene.objects[index]
    side = pick(rng, list(HALVES))
    x, y, w, h = item.box
    mask = object_mask(item, scene.size)
    if side in ("left", "right"):
        mask[:, x + (w + 1) // 2 :] &= side == "right"
        mask[:, : x + w // 2] &= side == "left"
    else:
        mask[y + (h + 1) // 2 :] &= side == "bottom"
        mask[: y + h // 2] &= side == "top"
    unique = [said for said in unique_descriptions(scene, index) if said & SHAPE_BIT and said.bit_count() <= 3]
    whole = noun_phrase(describe(item, pick(rng, unique or [EVERYTHING])), rng)
    return {"bb": list(tight_box(mask)), "caption": f"{pick(rng, HALVES[side])} of the {whole}"}


def union(boxes: list[Box]) -> Box:
    """The smallest box around all boxes."""
    x, y = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, bottom = max(box[0] + box[2] for box in boxes), max(box[1] + box[3] for box in boxes)
    return x, y, right - x, bottom - y


def mentioned(scene: Scene, index: int, rng: np.random.Generator, detail: float) -> Description:
    """An object by colour and shape, and by texture or size with chance `detail` or where colour and shape are not its alone."""
    unique, said = unique_descriptions(scene, index), SHAPE_BIT | COLOR_BIT
    more = [said | bit for bit in (TEXTURE_BIT, SIZE_BIT)]
    if said not in unique:
        said = pick(rng, [bits for bits in more if bits in unique] or [EVERYTHING])
    elif rng.random() < detail:
        said = pick(rng, more)
    return describe(scene.objects[index], said)


def _mentions(scene: Scene, indices: list[int], rng: np.random.Generator) -> list[str]:
    detail = 0.6 if len(scene.objects) < 5 else 0.15  # keeps captions of many objects short
    return [indefinite(noun_phrase(mentioned(scene, index, rng, detail), rng)) for index in indices]


def _enumerate(phrases: list[str]) -> str:
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def shuffled(scene: Scene, rng: np.random.Generator) -> list[int]:
    return [int(index) for index in rng.permutation(len(scene.objects))]


def _listing(scene: Scene, rng: np.random.Generator) -> str:
    """Every object, and the ground."""
    return f"{_enumerate(_mentions(scene, shuffled(scene, rng), rng))} on {indefinite(background_phrase(scene.background))}"


def _picture_of(scene: Scene, rng: np.random.Generator) -> str:
    """The total, and every object."""
    opening = pick(rng, ("a picture of {} shapes: ", "there are {} shapes: ", "{} objects: ")).format(NUMBERS[len(scene.objects)])
    return opening + _enumerate(_mentions(scene, shuffled(scene, rng), rng))


def _counting(scene: Scene, rng: np.random.Generator) -> str:
    """One group by its number and the others one by one."""
    found = sharing(scene)
    if not found:
        return f"{NUMBERS[len(scene.objects)]} shapes, {_enumerate(_mentions(scene, shuffled(scene, rng), rng))}"
    _, members = pick(rng, found)
    rest = [index for index in shuffled(scene, rng) if index not in members]
    counted = f"{NUMBERS[len(members)]} {noun_phrase(in_common(scene, members), rng, plural=True)}"
    return f"{_enumerate([counted, *_mentions(scene, rest, rng)])} on {indefinite(background_phrase(scene.background))}"


def in_common(scene: Scene, members: tuple[int, ...]) -> Description:
    """Everything that all members share. It fits nobody else, because what made them a group is part of it."""
    looks = zip(*(scene.objects[index].attributes() for index in members), strict=True)
    return Description(*(values[0] if len(set(values)) == 1 else None for values in looks))


def related_pairs(scene: Scene, rng: np.random.Generator) -> list[tuple[int, int, str]]:
    """Pairs in a plain relation that share no object, as many as a random matching finds."""
    pairs, used = [], set()
    everyone = list(combinations(shuffled(scene, rng), 2))
    for a, b in everyone:
        relations = [name for name in RELATIONS if holds(name, scene.objects[a], scene.objects[b], scene.size, strict=True)]
        if relations and a not in used and b not in used:
            pairs.append((a, b, relations[0]))
            used |= {a, b}
    return pairs


def _relation(scene: Scene, pair: tuple[int, int, str], verb: str, rng: np.random.Generator) -> str:
    a, b = _mentions(scene, list(pair[:2]), rng)
    return f"{a} {verb}{relation_words(pair[2], rng)} {b}"


def _relating(scene: Scene, rng: np.random.Generator) -> str:
    """Two pairs in their relations; the rest of an odd number goes unsaid unless no second pair is left."""
    pairs = related_pairs(scene, rng)[:2]
    verb = pick(rng, ("", "is "))
    if len(pairs) < 2:
        return _relating_and_rest(scene, rng)
    return f"{_relation(scene, pairs[0], verb, rng)} and {_relation(scene, pairs[1], verb, rng)}"


def _relating_and_rest(scene: Scene, rng: np.random.Generator) -> str:
    """One pair in its relation, and the others by name."""
    pairs = related_pairs(scene, rng)[:1]
    if not pairs:
        return _listing(scene, rng)
    rest = [index for index in shuffled(scene, rng) if index not in pairs[0][:2]]
    link = pick(rng, (", with {}", ", also {}", " besides {}")).format(_enumerate(_mentions(scene, rest, rng)))
    return _relation(scene, pairs[0], "", rng) + link
