"""Sayings about the embedded data set in English, with the words of its other English texts."""

from __future__ import annotations

import numpy as np

from dataset.shapeworld_refer import Description
from dataset.shapeworld_sayings import Saying
from dataset.shapeworld_scene import pick
from dataset.shapeworld_words import NUMBERS, background_phrase, indefinite, noun_phrase, relation_words

OPENINGS = ("a picture of {} shapes: ", "there are {} shapes: ", "{} objects: ")
RESTS = (", with {}", ", also {}", " besides {}")


def english(saying: Saying, rng: np.random.Generator) -> str:
    """The sentence."""
    opening = "" if saying.total is None else pick(rng, OPENINGS).format(NUMBERS[saying.total])
    ground = "" if saying.ground is None else f" on {indefinite(background_phrase(saying.ground))}"
    things = enumerated([_mention(item, count, rng) for item, count in saying.things], "and")
    if not saying.relations:
        return f"{opening}{things}{ground}"
    verb = pick(rng, ("", "is ")) if not things else ""
    related = [f"{_mention(a, 1, rng)} {verb}{relation_words(name, rng)} {_mention(b, 1, rng)}" for a, name, b in saying.relations]
    return " and ".join(related) + (pick(rng, RESTS).format(things) if things else "")


def enumerated(phrases: list[str], last: str) -> str:
    """ "a, b and c", with the language's own word before the last; "" of nothing."""
    return f"{', '.join(phrases[:-1])} {last} {phrases[-1]}" if len(phrases) > 1 else "".join(phrases)


def _mention(item: Description, count: int, rng: np.random.Generator) -> str:
    return indefinite(noun_phrase(item, rng)) if count == 1 else f"{NUMBERS[count]} {noun_phrase(item, rng, plural=True)}"
