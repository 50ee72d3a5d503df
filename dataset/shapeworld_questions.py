"""Questions about a scene with their answers. Every question has one answer that is beyond doubt.

The words are those of captions and expressions where that can be, since the vocabulary is made of these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from dataset.shapeworld_refer import (
    COLOR_BIT,
    RELATIONS,
    SHAPE_BIT,
    SIZE_BIT,
    TEXTURE_BIT,
    Description,
    Reference,
    describe,
    fitting,
    holds,
    refer_by_extreme,
    resolve,
    unique_descriptions,
)
from dataset.shapeworld_scene import COLORS, SHAPES, TEXTURES, Scene, pick
from dataset.shapeworld_text import indefinite
from dataset.shapeworld_words import NUMBERS, expression, noun_phrase, relation_words

PEOPLE = 10
"""Who answer every question, all alike."""
COUNTS = ("none", *NUMBERS.values())
"""How many, from nothing to the most objects of a scene. Words, since the vocabulary has no digits; to the rule of VQA v2 they are the
same."""
ANSWERS = ("yes", "no", *COUNTS, *COLORS, *SHAPES, *TEXTURES)
VALUES = {"color": COLORS, "shape": SHAPES, "texture": TEXTURES}
BITS = {"color": COLOR_BIT, "shape": SHAPE_BIT, "texture": TEXTURE_BIT}


class Asked(NamedTuple):
    """A question, its answer, and the kind of answer as VQA v2 calls it."""

    question: str
    answer: str
    kind: str


def questions(scene: Scene, wanted: int, rng: np.random.Generator) -> list[Asked]:
    """Up to `wanted` different questions, of kinds that take turns from a random one on."""
    asked: list[Asked] = []
    first = int(rng.integers(len(KINDS)))
    for turn in range(2 * len(KINDS)):
        found = KINDS[(first + turn) % len(KINDS)](scene, rng)
        if found is not None and found.question not in {other.question for other in asked}:
            asked.append(found)
        if len(asked) == wanted:
            break
    return asked


def question_record(asked: Asked, image: str, number: int) -> dict[str, Any]:
    """A question in the layout of VQA v2."""
    record = {"question_id": number, "question": asked.question, "answer": [asked.answer] * PEOPLE, "image": image, "dataset": "vqa"}
    return record | {"answer_type": asked.kind}


def _existence(scene: Scene, rng: np.random.Generator) -> Asked:
    """Of an object that is there, or of one that differs from it in colour or shape and is not: half of the time each."""
    item = pick(rng, scene.objects)
    description = describe(item, SHAPE_BIT | COLOR_BIT)
    if rng.random() < 0.5:
        name = pick(rng, ("color", "shape"))
        others = [replace(description, **{name: value}) for value in VALUES[name]]
        absent = [other for other in others if not fitting(scene, other)]
        description = pick(rng, absent)  # five objects cannot have all six colours or shapes
    answer = "yes" if fitting(scene, description) else "no"
    return Asked(f"is there {indefinite(noun_phrase(description, rng))}?", answer, "yes/no")


def _relation(scene: Scene, rng: np.random.Generator) -> Asked | None:
    """Whether one object is, say, left of another, where the answer is plain."""
    named = [index for index in range(len(scene.objects)) if SHAPE_BIT | COLOR_BIT in unique_descriptions(scene, index)]
    if len(named) < 2:
        return None
    a, b = (named[place] for place in rng.permutation(len(named))[:2].tolist())
    first, second = scene.objects[a], scene.objects[b]
    plain = [name for name in RELATIONS if holds(name, first, second, scene.size, strict=True)]
    wrong = [name for name in RELATIONS if not holds(name, first, second, scene.size, strict=False)]
    true = bool(plain) and rng.random() < 0.5
    relation = pick(rng, plain if true else wrong)
    one, other = (noun_phrase(describe(item, SHAPE_BIT | COLOR_BIT), rng) for item in (first, second))
    return Asked(f"is the {one} {relation_words(relation, rng)} the {other}?", "yes" if true else "no", "yes/no")


def _count(scene: Scene, rng: np.random.Generator) -> Asked:
    """How many objects have a colour, shape or texture in common, sometimes none; or how many there are."""
    name = pick(rng, ("color", "shape", "texture", ""))
    present = [getattr(item, name) for item in scene.objects] if name else []
    value = pick(rng, VALUES[name] if rng.random() < 0.25 else present) if name else None
    description = Description(**{name: value}) if name else Description()
    return Asked(f"how many {noun_phrase(description, rng, plural=True)} are there?", COUNTS[len(fitting(scene, description))], "number")


def _attribute(name: str) -> Callable[[Scene, np.random.Generator], Asked | None]:
    """What colour, shape or texture the object has that is singled out by other things."""
    asks = {
        "color": "what color is {}?",
        "shape": "what shape is {}?",
        "texture": "is {} plain striped or dotted?",
    }

    def ask(scene: Scene, rng: np.random.Generator) -> Asked | None:
        target = int(rng.integers(len(scene.objects)))
        references = [
            Reference(describe(scene.objects[target], said))
            for said in unique_descriptions(scene, target)
            if not said & BITS[name] and said.bit_count() <= 2 and said != SIZE_BIT
        ]
        extreme = refer_by_extreme(scene, target, rng)
        if extreme is not None:
            extreme = replace(extreme, description=replace(extreme.description, **{name: None}))
            if resolve(scene, extreme) == (target,):
                references.append(extreme)
        if not references:
            return None
        phrase = expression(pick(rng, references), rng)
        phrase = phrase if phrase.startswith("the ") else f"the {phrase}"
        return Asked(asks[name].format(phrase), getattr(scene.objects[target], name), "other")

    return ask


KINDS: tuple[Callable[[Scene, np.random.Generator], Asked | None], ...] = (
    _existence,
    _attribute("color"),
    _count,
    _attribute("shape"),
    _relation,
    _attribute("texture"),
)
