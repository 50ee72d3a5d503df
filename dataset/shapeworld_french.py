"""Sayings about the embedded data set in French: adjectives agree with gender and number, "de" and "que" are elided."""

from __future__ import annotations

import numpy as np

from dataset.shapeworld_english import enumerated
from dataset.shapeworld_refer import Description
from dataset.shapeworld_sayings import Saying
from dataset.shapeworld_scene import Background, pick

NUMBERS = {2: "deux", 3: "trois", 4: "quatre", 5: "cinq"}
NOUNS = {
    "circle": ("m", "cercle", "cercles"),
    "square": ("m", "carré", "carrés"),
    "triangle": ("m", "triangle", "triangles"),
    "star": ("f", "étoile", "étoiles"),
    "cross": ("f", "croix", "croix"),
    "ring": ("m", "anneau", "anneaux"),
    None: ("f", "forme", "formes"),
}
"""Gender, singular and plural."""
ADJECTIVES = {
    "small": ("petit", "petite"),
    "large": ("grand", "grande"),
    "red": ("rouge", "rouge"),
    "green": ("vert", "verte"),
    "blue": ("bleu", "bleue"),
    "yellow": ("jaune", "jaune"),
    "purple": ("violet", "violette"),
    "plain": ("uni", "unie"),
    "striped": ("rayé", "rayée"),
}
"""Masculine and feminine; the plural has an s."""
INVARIABLE = {"cyan": "cyan", "dotted": "à pois"}
STRIPES = "à rayures"
RELATIONS = {"left_of": ("à gauche de",), "right_of": ("à droite de",), "above": ("au-dessus de",), "below": ("sous", "en dessous de")}
SHADES = {"dark": "sombre", "light": "clair"}
GROUNDS = {"plain": "uni", "gradient": "dégradé", "noisy": "bruité", "checkered": "à carreaux"}
OPENINGS = ("une image de {} formes : ", "il y a {} formes : ", "{} objets : ")
RESTS = (", avec", ", et aussi", ", ainsi que")


def french(saying: Saying, rng: np.random.Generator) -> str:
    """The sentence."""
    opening = "" if saying.total is None else pick(rng, OPENINGS).format(NUMBERS[saying.total])
    ground = "" if saying.ground is None else f" sur {_ground(saying.ground)}"
    things = enumerated([mention(item, count, rng) for item, count in saying.things], "et")
    if not saying.relations:
        return f"{opening}{things}{ground}"
    verb = pick(rng, ("", "est ")) if not things else ""
    related = [f"{mention(a, 1, rng)} {verb}{_joined(pick(rng, RELATIONS[name]), mention(b, 1, rng))}" for a, name, b in saying.relations]
    return " et ".join(related) + (_joined(pick(rng, RESTS), things) if things else "")


def mention(item: Description, count: int, rng: np.random.Generator) -> str:
    """One object with its article ("une grande étoile verte rayée"), or several ("deux étoiles vertes")."""
    gender, singular, plural = NOUNS[item.shape]
    article = NUMBERS[count] if count > 1 else "une" if gender == "f" else "un"
    words = [article, *_agreeing(item.size, gender, count), singular if count == 1 else plural, *_agreeing(item.color, gender, count)]
    if item.texture == "striped" and rng.random() < 0.3:
        return " ".join([*words, STRIPES])
    return " ".join([*words, *_agreeing(item.texture, gender, count)])


def _agreeing(value: str | None, gender: str, count: int) -> list[str]:
    """The adjective of a value in its form; none of None."""
    if value is None or value in INVARIABLE:
        return [INVARIABLE[value]] if value else []
    return [ADJECTIVES[value][gender == "f"] + ("s" if count > 1 else "")]


def _joined(link: str, phrase: str) -> str:
    """Two parts with a space between; "de" and "que" lose their vowel before another."""
    if link.endswith(("de", "que")) and phrase[0] in "aeiouéà":
        return f"{link[:-1]}'{phrase}"
    return f"{link} {phrase}"


def _ground(ground: Background) -> str:
    return f"un fond {SHADES[ground.shade]} {GROUNDS[ground.kind]}"
