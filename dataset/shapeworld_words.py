"""English wording of descriptions, groups and expressions. "bright" and other words that hold "left" or "right" are avoided."""

from __future__ import annotations

import numpy as np

from dataset.shapeworld_refer import Description, Reference
from dataset.shapeworld_scene import Background, pick

NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}
SIZE_WORDS = {"small": ("small", "small", "little"), "large": ("large", "large", "big")}
TEXTURE_NOUNS = {"striped": "stripes", "dotted": "dots"}
PLURALS = {"cross": "crosses"}
RELATION_WORDS = {
    "left_of": ("left of", "to the left of"),
    "right_of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
EXTREME_WORDS = {
    "leftmost": ("leftmost",),
    "rightmost": ("rightmost",),
    "highest": ("highest", "topmost"),
    "lowest": ("lowest", "bottom"),
    "largest": ("largest", "biggest"),
    "smallest": ("smallest",),
}


def noun_phrase(description: Description, rng: np.random.Generator, plural: bool = False) -> str:
    """The description without an article: "large striped red circle", "red circle with stripes", "plain shape"."""
    noun = description.shape or "shape"
    words = [pick(rng, SIZE_WORDS[description.size])] if description.size else []
    tail = ""
    if description.texture in TEXTURE_NOUNS and rng.random() < 0.3:
        tail = f" with {TEXTURE_NOUNS[description.texture]}"
    elif description.texture:
        words.append(description.texture)
    if description.color:
        words.append(description.color)
    words.append(PLURALS.get(noun, f"{noun}s") if plural else noun)
    return " ".join(words) + tail


def indefinite(phrase: str) -> str:
    """The phrase with "a" or "an"."""
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"


def group_phrase(description: Description, count: int, rng: np.random.Generator) -> str:
    """All `count` objects that a description fits: "the two red shapes", "both circles"."""
    plural = noun_phrase(description, rng, plural=True)
    options = [f"the {NUMBERS[count]} {plural}", f"{NUMBERS[count]} {plural}", f"all {NUMBERS[count]} {plural}"]
    if count == 2:
        options = [*options[:2], f"both {plural}", f"the pair of {plural}"]
    return pick(rng, options)


def relation_words(relation: str, rng: np.random.Generator) -> str:
    return pick(rng, RELATION_WORDS[relation])


def expression(reference: Reference, rng: np.random.Generator) -> str:
    """A referring expression: "the circle left of the blue square"."""
    phrase = noun_phrase(reference.description, rng)
    if reference.extreme is not None:
        phrase = f"{pick(rng, EXTREME_WORDS[reference.extreme])} {phrase}"
    if reference.relation is not None and reference.anchor is not None:
        link = pick(rng, ("", "", "that is "))
        phrase = f"{phrase} {link}{relation_words(reference.relation, rng)} the {noun_phrase(reference.anchor, rng)}"
    return f"the {phrase}" if rng.random() < 0.7 else phrase


def background_phrase(background: Background) -> str:
    """The ground without an article: "dark checkered background"."""
    return f"{background.shade} {background.kind} background"
