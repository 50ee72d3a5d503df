"""Sayings about the embedded data set in German: adjectives agree with gender, number and case."""

from __future__ import annotations

from typing import Literal

import numpy as np

from dataset.shapeworld_english import enumerated
from dataset.shapeworld_refer import Description
from dataset.shapeworld_sayings import Saying
from dataset.shapeworld_scene import Background, pick

Case = Literal["nominative", "dative"]
NUMBERS = {2: "zwei", 3: "drei", 4: "vier", 5: "fünf"}
NOUNS = {
    "circle": ("m", "Kreis", "Kreise"),
    "square": ("n", "Quadrat", "Quadrate"),
    "triangle": ("n", "Dreieck", "Dreiecke"),
    "star": ("m", "Stern", "Sterne"),
    "cross": ("n", "Kreuz", "Kreuze"),
    "ring": ("m", "Ring", "Ringe"),
    None: ("f", "Form", "Formen"),
}
"""Gender, singular (as in the nominative, so in the dative) and plural."""
SIZES = {"small": "klein", "large": "groß"}
COLORS = {"red": "rot", "green": "grün", "blue": "blau", "yellow": "gelb", "purple": "violett", "cyan": "türkisfarben"}
TEXTURES = {"plain": "einfarbig", "striped": "gestreift", "dotted": "gepunktet"}
TEXTURE_TAILS = {"striped": "mit Streifen", "dotted": "mit Punkten"}
ARTICLES = {
    "nominative": {"m": "ein", "f": "eine", "n": "ein"},
    "dative": {"m": "einem", "f": "einer", "n": "einem"},
}
ENDINGS = {"nominative": {"m": "er", "f": "e", "n": "es"}, "dative": {"m": "en", "f": "en", "n": "en"}}
"""Of adjectives behind an indefinite article."""
PLURAL_ENDING = "e"
"""Of adjectives behind a number, in the nominative."""
RELATIONS = {
    "left_of": ("links von", "links neben"),
    "right_of": ("rechts von", "rechts neben"),
    "above": ("über", "oberhalb von"),
    "below": ("unter", "unterhalb von"),
}
"""All of them take the dative."""
SHADES = {"dark": "dunklen", "light": "hellen"}
GROUNDS = {
    "plain": "einfarbigen Hintergrund",
    "gradient": "Hintergrund mit Farbverlauf",
    "noisy": "verrauschten Hintergrund",
    "checkered": "karierten Hintergrund",
}
OPENINGS = ("{} Formen im Bild: ", "hier sind {} Formen: ", "{} Objekte: ")
RESTS: tuple[tuple[str, Case], ...] = ((", mit {}", "dative"), (", dazu {}", "nominative"), (" und außerdem {}", "nominative"))


def german(saying: Saying, rng: np.random.Generator) -> str:
    """The sentence."""
    opening = "" if saying.total is None else pick(rng, OPENINGS).format(NUMBERS[saying.total])
    ground = "" if saying.ground is None else f" auf {_ground(saying.ground)}"
    if not saying.relations:
        return f"{opening}{_things(saying, rng)}{ground}"
    verb = pick(rng, ("", "ist ")) if not saying.things else ""
    related = [f"{mention(a, 1, rng)} {verb}{pick(rng, RELATIONS[name])} {mention(b, 1, rng, 'dative')}" for a, name, b in saying.relations]
    link, case = pick(rng, RESTS)
    return " und ".join(related) + (link.format(_things(saying, rng, case)) if saying.things else "")


def mention(item: Description, count: int, rng: np.random.Generator, case: Case = "nominative") -> str:
    """One object with its article ("ein großer roter Kreis"), or several in the nominative ("zwei rote Kreise")."""
    gender, singular, plural = NOUNS[item.shape]
    ending = ENDINGS[case][gender] if count == 1 else PLURAL_ENDING
    with_tail = item.texture in TEXTURE_TAILS and rng.random() < 0.3
    stems = (
        SIZES[item.size] if item.size else None,
        TEXTURES[item.texture] if item.texture and not with_tail else None,
        COLORS[item.color] if item.color else None,
    )
    words = [ARTICLES[case][gender] if count == 1 else NUMBERS[count], *(f"{stem}{ending}" for stem in stems if stem)]
    words.append(singular if count == 1 else plural)
    if with_tail and item.texture:
        words.append(TEXTURE_TAILS[item.texture])
    return " ".join(words)


def _things(saying: Saying, rng: np.random.Generator, case: Case = "nominative") -> str:
    return enumerated([mention(item, count, rng, case) for item, count in saying.things], "und")


def _ground(ground: Background) -> str:
    return f"einem {SHADES[ground.shade]} {GROUNDS[ground.kind]}"
