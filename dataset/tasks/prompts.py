"""Sentences about classes and attributes."""

from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError
from dataset.tasks.ovad import Attribute

ONE_WORD = "{}"
"""What a template of classes has in the place of the name."""


def read_lines(key: str, file: Path) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
        UserError: the file is missing or has none.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{key}: {file} cannot be read ({error}).") from error
    if not lines:
        raise UserError(f"{key}: {file} holds no line.")
    return lines


def class_prompts(names: Sequence[str], templates: Sequence[str]) -> list[list[str]]:
    """Every class in every template. A name may be several, separated by commas: each stands in every template.

    Raises:
        UserError: a template has no place for the name.
    """
    without = [template for template in templates if ONE_WORD not in template]
    if without:
        raise UserError(f'data.templates: "{without[0]}" has no {ONE_WORD} for the name of the class.')
    synonyms = [[part.strip() for part in name.split(",") if part.strip()] for name in names]
    return [[template.replace(ONE_WORD, word) for word in words for template in templates] for words in synonyms]


ATTRIBUTE_TEMPLATES = {
    "is": ("{attr} {noun}", "a {attr} {noun}", "a {noun} is {attr}", "the {attr} {noun}", "the {noun} is {attr}"),
    "has": (
        "{attr} {kind} {noun}",
        "a {attr} {kind} {noun}",
        "a {noun} has {attr} {kind}",
        "the {attr} {kind} {noun}",
        "the {noun} has {attr} {kind}",
    ),
}
"""OVAD's: of attributes that an object is, and of those that it has; {kind} is the attribute's type ("hair color")."""
MORE_WORDS = {"young/baby": ("kid", "kids", "child", "toddler", "boy", "girl"), "adult/old/aged": ("teen", "elder")}
"""Synonyms that OVAD's evaluation adds to the names of its file."""


def attribute_prompts(attributes: Sequence[Attribute], noun: str) -> list[list[str]]:
    """Sentences about each attribute: all its synonyms in all templates.

    Args:
        attributes: of an OVAD file.
        noun: what objects are called; "" as in the published evaluation of X-VLM.
    """
    return [
        [
            " ".join(template.format(attr=word, kind=attribute.kind.replace(" tone", ""), noun=noun).split())
            for word in (*attribute.words, *MORE_WORDS.get("/".join(attribute.words), ()))
            for template in ATTRIBUTE_TEMPLATES[attribute.verb]
        ]
        for attribute in attributes
    ]
