"""Captions and questions: normalisation, and the choice of a caption where a record holds several (X2-VLM's layouts)."""

import re
from typing import Any, Literal

import numpy as np

_MARKS = ",.'!?\"()*#:;~"
_DASHES: dict[str, str | None] = dict.fromkeys("-/", " ")
Punctuation = Literal["space", "delete"]
"""What becomes of punctuation: a space (X2-VLM, CCLM, X-FM: "it's" is read as "it s"), or nothing (X-VLM: "its"). Dashes and slashes
always become spaces."""
_TABLES: dict[Punctuation, dict[int, str | None]] = {
    "space": str.maketrans({**dict.fromkeys(_MARKS, " "), **_DASHES}),
    "delete": str.maketrans({**dict.fromkeys(_MARKS), **_DASHES}),
}
_SPACES = re.compile(r"\s{2,}")
_SIDES = re.compile(r"\b(?:left|right)(?:most)?\b", re.IGNORECASE)


Text = str | tuple[str, str]
"""What becomes one row of tokens: a text, or two of them, which the tokenizer joins in its model's own way."""


class EmptyCaption(ValueError):
    """There is no caption, or nothing is left of it."""


Captions = Any
"""A text, a list of texts, or a mapping language -> text or list of texts, as annotations hold them."""


def pre_caption(text: str, max_words: int, punctuation: Punctuation = "space") -> str:
    """Normalise a caption: lower case, no punctuation, at most `max_words` words.

    Runs of white space become one space; single tabs and line breaks stay, as in the published code.

    Raises:
        EmptyCaption: nothing is left.
    """
    text = text.lower().translate(_TABLES[punctuation]).replace("<person>", "person")
    text = _SPACES.sub(" ", text).rstrip("\n").strip(" ")
    words = text.split(" ")
    if len(words) > max_words:
        text = " ".join(words[:max_words])
    if not text.strip():
        raise EmptyCaption("the caption is empty")
    return text


def pre_question(text: str, max_words: int, punctuation: Punctuation = "space") -> str:
    """Normalise a question: as a caption, but inner white space and <person> stay as they are.

    As in the published code a run of spaces counts as words of no letters. A question may become empty.
    """
    text = text.lower().translate(_TABLES[punctuation]).rstrip(" ")
    return " ".join(text.split(" ")[:max_words])


def caption_texts(captions: Captions) -> list[str]:
    """All texts of a caption or attribute value, whatever its layout; an empty list for None or anything else."""
    if isinstance(captions, str):
        return [captions]
    if isinstance(captions, dict):
        captions = list(captions.values())
    return [text for part in captions for text in caption_texts(part)] if isinstance(captions, list) else []


def pick_caption(captions: Captions, rng: np.random.Generator, attributes: Captions = None) -> str:
    """Choose one caption at random and put a random attribute before it, where there are any.

    Of a mapping one language is drawn; attributes that are a mapping are then taken in the same language.

    Raises:
        EmptyCaption: there is no caption at all.
    """
    if isinstance(captions, dict) and captions:
        language = list(captions)[_draw(len(captions), rng)]
        captions = captions[language]
        if isinstance(attributes, dict):
            attributes = attributes.get(language)
    elif isinstance(captions, list) and captions and isinstance(captions[0], dict):
        return pick_caption(captions[_draw(len(captions), rng)], rng, attributes)
    texts = caption_texts(captions)
    if not texts:
        raise EmptyCaption("there is no caption")
    caption = texts[_draw(len(texts), rng)]
    words = [word for word in caption_texts(attributes) if word.strip()]
    return f"{words[_draw(len(words), rng)]} {caption}" if words else caption


def names_a_side(texts: list[str]) -> bool:
    """True if a text has the word left, right, leftmost or rightmost, so that mirroring its image would make it wrong."""
    return any(_SIDES.search(text) for text in texts)


def _draw(count: int, rng: np.random.Generator) -> int:
    return int(rng.integers(count)) if count > 1 else 0
