"""Phrase concepts by rules, and from a parse."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from common.errors import UserError
from dataset.phrases import extract, phrases_of
from dataset.phrases.spacy_backend import phrases_of_parse
from dataset.phrases.tagging import noun_lemma, words_of
from dataset.text import pre_caption

GOLDEN = json.loads((Path(__file__).parents[2] / "fixtures" / "caption_phrases.json").read_text(encoding="utf-8"))["captions"]


def test_captions_of_photographs_read_sensibly() -> None:
    assert len(GOLDEN) == 50
    for row in GOLDEN:
        assert [", ".join(phrase) for phrase in extract(row["caption"])] == row["phrases"], row["caption"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "A child holding a flowered umbrella and petting a yak.",
            "child|child,hold,umbrella|child,pet,yak|umbrella|umbrella,flowered|yak",
        ),
        ("two boats", "boat|boat,two"),
        ("The bus is red and the street is empty", "bus|bus,red|street|street,empty"),
        ("A man's hat", "hat|man|man,have,hat"),
        ("a group of people riding horses", "group|group,of,people|horse|people|people,ride,horse"),
        (
            "a small red circle to the left of a striped square",
            "circle|circle,red|circle,small|circle,to the left of,square|square|square,striped",
        ),
        ("", ""),
        ("on and of the", ""),
    ],
)
def test_objects_attributes_and_relations(text: str, expected: str) -> None:
    assert "|".join(",".join(phrase) for phrase in extract(text)) == expected


def test_a_phrase_names_the_words_it_was_read_from() -> None:
    text = "A man in front of two red buses"
    words = words_of(text)
    found = {phrase.parts: [words[number] for number in phrase.words] for phrase in phrases_of(text)}
    assert found[("bus", "red")] == ["buses", "red"]
    assert found[("man", "in front of", "bus")] == ["man", "in", "buses"]


def test_words_are_counted_alike_before_and_after_a_caption_is_normalised() -> None:
    for row in GOLDEN:
        assert words_of(pre_caption(row["caption"], 100)) == words_of(row["caption"])


@pytest.mark.parametrize(
    ("plural", "one"), [("buses", "bus"), ("children", "child"), ("dresses", "dress"), ("ponies", "pony"), ("grass", "grass")]
)
def test_nouns_are_counted_in_the_singular(plural: str, one: str) -> None:
    assert noun_lemma(plural) == one


@dataclass
class Token:
    """As much of a spaCy token as is read."""

    text: str
    idx: int
    pos_: str
    dep_: str
    lemma_: str
    children: list["Token"] = field(default_factory=list)


def test_a_parse_gives_the_same_phrases() -> None:
    text = "a young child holding two umbrellas on a street"
    rows = [
        ("a", "DET", "det", "a", 2),
        ("young", "ADJ", "amod", "young", 2),
        ("child", "NOUN", "ROOT", "child", 2),
        ("holding", "VERB", "acl", "hold", 2),
        ("two", "NUM", "nummod", "two", 5),
        ("umbrellas", "NOUN", "dobj", "umbrella", 3),
        ("on", "ADP", "prep", "on", 5),
        ("a", "DET", "det", "a", 8),
        ("street", "NOUN", "pobj", "street", 6),
    ]
    tokens, start = [], 0
    for word, pos, dep, lemma, _ in rows:
        start = text.index(word, start)
        tokens.append(Token(word, start, pos, dep, lemma))
        start += len(word)
    for token, (*_, head) in zip(tokens, rows, strict=True):
        if tokens[head] is not token:
            tokens[head].children.append(token)
    spans = [(token.idx, token.idx + len(token.text)) for token in tokens]
    found = phrases_of_parse(tokens, spans)
    assert sorted({phrase.parts for phrase in found}) == extract(text)
    assert next(phrase.words for phrase in found if phrase.parts == ("umbrella", "on", "street")) == (5, 6, 8)


def test_both_backends_find_the_same_heads_where_spacy_is_installed() -> None:
    try:
        parsed = [extract(row["caption"], "spacy") for row in GOLDEN[:20]]
    except UserError as error:
        pytest.skip(str(error))
    heads = [{phrase[0] for phrase in found if len(phrase) == 1} for found in parsed]
    ours = [{phrase[0] for phrase in extract(row["caption"]) if len(phrase) == 1} for row in GOLDEN[:20]]
    shared = sum(len(a & b) for a, b in zip(heads, ours, strict=True))
    assert shared / sum(len(a | b) for a, b in zip(heads, ours, strict=True)) > 0.8
