"""Captions and questions: normalisation, and the choice of a caption where a record holds several (X2-VLM's layouts)."""

import re
from collections.abc import Collection
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
_SIDES = re.compile(r"\b(?:(?:left|right)(?:most)?|links|rechts|(?:link|recht)e[mnrs]?|gauche|droite)\b|[左右]", re.IGNORECASE)
"""The sides in English, German, French, Chinese and Japanese."""
_UNSPACED = ("zh", "ja")
"""Languages written without spaces; data sets have their texts cut into words."""
_CJK = "\u3000-\u30ff\u3400-\u9fff\uff00-\uffef"
_INNER_SPACES = re.compile(rf"(?<=[{_CJK}])\s+(?=[{_CJK}])")


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


def spoken(captions: Captions, languages: Collection[str] | None) -> Captions:
    """What of captions or attributes is in these languages: mappings lose all others, texts of no stated language stay. None: all."""
    if languages is None or isinstance(captions, str):
        return captions
    if isinstance(captions, dict):
        return {language: texts for language, texts in captions.items() if language in languages}
    return [spoken(part, languages) for part in captions] if isinstance(captions, list) else captions


def pick_caption(
    captions: Captions,
    rng: np.random.Generator,
    attributes: Captions = None,
    languages: Collection[str] | None = None,
    code_switch: bool = False,
) -> str:
    """Choose one caption at random and put a random attribute before it, where there are any.

    Of a mapping one language is drawn; attributes that are a mapping are then taken in the same language.

    Args:
        captions: see `Captions`.
        rng: of the sample.
        attributes: in the same layouts.
        languages: those that may be drawn of a mapping; None: all.
        code_switch: draw the attribute's language by itself. (The published code of CCLM then takes a letter in place of an attribute.)

    Raises:
        EmptyCaption: there is no caption at all, or none in these languages.
    """
    caption, language = _pick_text(spoken(captions, languages), rng, languages)
    attributes = spoken(attributes, languages)
    if isinstance(attributes, dict) and code_switch and attributes:
        attributes = attributes[list(attributes)[_draw(len(attributes), rng)]]
    elif isinstance(attributes, dict) and language is not None:
        attributes = attributes.get(language)
    words = [word for word in caption_texts(attributes) if word.strip()]
    return _written(f"{words[_draw(len(words), rng)]} {caption}" if words else caption, language)


def pick_two_captions(captions: Captions, rng: np.random.Generator, languages: Collection[str] | None = None) -> list[str]:
    """Choose two captions: in two languages where there are two, else two of one list; the same twice where there is but one.

    Raises:
        EmptyCaption: there is no caption at all, or none in these languages.
    """
    found = spoken(captions, languages)
    if isinstance(found, list) and found and isinstance(found[0], dict):
        found = found[_draw(len(found), rng)]
    if isinstance(found, dict) and len(found) > 1:
        chosen = [list(found)[place] for place in rng.permutation(len(found))[:2]]
        return [pick_caption({language: found[language]}, rng) for language in chosen]
    texts = caption_texts(found)
    if len(texts) < 2:
        return [pick_caption(found, rng)] * 2
    language = next(iter(found)) if isinstance(found, dict) else None
    return [_written(texts[place], language) for place in rng.permutation(len(texts))[:2]]


def _pick_text(captions: Captions, rng: np.random.Generator, languages: Collection[str] | None) -> tuple[str, str | None]:
    """One text and its language, where that is told."""
    language = None
    if isinstance(captions, list) and captions and isinstance(captions[0], dict):
        return _pick_text(captions[_draw(len(captions), rng)], rng, languages)
    if isinstance(captions, dict) and captions:
        language = list(captions)[_draw(len(captions), rng)]
        captions = captions[language]
    texts = caption_texts(captions)
    if not texts:
        raise EmptyCaption("there is no caption" if languages is None else f"there is no caption in {' or '.join(languages)}")
    return texts[_draw(len(texts), rng)], language


def _written(text: str, language: str | None) -> str:
    """A text as its language is written: data sets separate Chinese and Japanese words, their readers do not."""
    return _INNER_SPACES.sub("", text) if language is not None and language.startswith(_UNSPACED) else text


def names_a_side(texts: list[str]) -> bool:
    """True if a text has a word for left or right, such as leftmost, so that mirroring its image would make it wrong."""
    return any(_SIDES.search(text) for text in texts)


def _draw(count: int, rng: np.random.Generator) -> int:
    return int(rng.integers(count)) if count > 1 else 0
