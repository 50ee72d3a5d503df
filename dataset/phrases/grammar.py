"""Objects, attributes and relations of a caption by rules over word classes: no download, the same on every machine.

Noun phrases are a determiner, modifiers and nouns, of which the last is the head. What stands between two of them makes a relation: a
verb with or without a preposition, or a preposition alone. It is meant for captions, which are short and plain.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dataset.phrases.lexicon import COLLECTIVES, HAVING
from dataset.phrases.phrase import Phrase
from dataset.phrases.tagging import Word, tag

OPENS = ("det", "num", "adj", "noun")


@dataclass(frozen=True)
class Chunk:
    """A noun phrase."""

    head: Word
    modifiers: tuple[Word, ...]


@dataclass
class _Reading:
    """What is known on the way through a caption."""

    found: list[Phrase] = field(default_factory=list)
    subject: Chunk | None = None
    """Who acts in this clause."""
    last: Chunk | None = None
    """The latest noun phrase, which a preposition belongs to."""
    verb: Word | None = None
    particle: Word | None = None
    """The preposition on the way to the next noun phrase."""
    aux: Word | None = None
    joined: bool = False
    """Whether a conjunction was the last word."""
    added: bool = False
    """Whether the latest noun phrase came with a conjunction."""
    owner: Chunk | None = None


def extract_by_rules(text: str) -> list[Phrase]:
    """The phrases of a caption, in the order of its words."""
    words, reading = tag(text), _Reading()
    place = 0
    while place < len(words):
        chunk, following = _chunk(words, place)
        if chunk is None:
            _read_word(reading, words[place])
            place += 1
            continue
        _read_chunk(reading, chunk)
        place = following
        if place < len(words) and words[place].kind == "own":
            reading.owner = chunk
            place += 1
    _complement(reading)
    return reading.found


def _chunk(words: list[Word], start: int) -> tuple[Chunk | None, int]:
    """The noun phrase that begins here, and where it ends; adjectives alone make none."""
    place, content = start, []
    while place < len(words):
        word, following = words[place], words[place + 1] if place + 1 < len(words) else None
        if word.kind in ("adj", "noun", "num"):
            content.append(word)
        elif word.kind == "det" and not content:
            pass
        elif word.kind == "adv" and following is not None and following.kind == "adj" and word.text not in ("up", "down", "out", "off"):
            pass  # "very tall"
        elif not (_joins(word) and content and content[-1].kind == "adj" and _adjective_then_noun(words, place + 1)):
            break
        place += 1
    nouns = [index for index, word in enumerate(content) if word.kind == "noun"]
    if not nouns:
        return None, start
    if place < len(words) and words[place].kind == "own":
        return Chunk(content[nouns[-1]], ()), place
    return Chunk(content[nouns[-1]], tuple(content[: nouns[-1]])), place


def _joins(word: Word) -> bool:
    return word.text in ("and", ",", "or")


def _adjective_then_noun(words: list[Word], place: int) -> bool:
    """Whether more adjectives and at last a noun follow: "red and white bus"."""
    seen = False
    while place < len(words) and (words[place].kind == "adj" or (_joins(words[place]) and seen)):
        seen, place = True, place + 1
    return seen and place < len(words) and words[place].kind == "noun"


def _read_word(reading: _Reading, word: Word) -> None:
    """A word between two noun phrases."""
    joined, reading.joined = reading.joined, word.kind == "conj" or word.text == ","
    if word.kind == "mark" and word.text != ",":
        reading.subject = reading.last = reading.verb = reading.particle = reading.aux = None
    elif word.kind == "break":
        _complement(reading)
        reading.verb = reading.particle = reading.aux = None
        reading.last = None
    elif word.kind == "aux":
        reading.aux, reading.verb, reading.particle = word, None, None
        if reading.added and word.text in ("is", "was", "has"):
            reading.subject = reading.last  # "the bus is red and the street is empty"
    elif word.kind == "verb":
        if not joined and reading.last is not None and reading.subject is None:
            reading.subject = reading.last
        reading.verb, reading.particle = word, None
    elif word.kind == "prep":
        reading.particle = word
    elif (
        word.kind == "adj" and reading.aux is not None and reading.verb is None and reading.particle is None and reading.subject is not None
    ):
        reading.found.append(_attribute(reading.subject, word))


def _read_chunk(reading: _Reading, chunk: Chunk) -> None:
    reading.found.append(Phrase((chunk.head.lemma,), (chunk.head.number,)))
    reading.found += [_attribute(chunk, modifier) for modifier in chunk.modifiers]
    if reading.owner is not None:
        reading.found.append(_relation(reading.owner, "have", (), chunk))
        reading.owner = None
    link = [word for word in (reading.verb, reading.particle) if word is not None]
    if reading.verb is not None and reading.subject is not None:
        reading.found.append(_relation(reading.subject, " ".join(word.lemma for word in link), tuple(word.number for word in link), chunk))
    elif reading.particle is not None and reading.last is not None:
        reading.found.append(_relation(reading.last, reading.particle.lemma, (reading.particle.number,), chunk))
    elif reading.aux is not None and reading.aux.text in HAVING and reading.subject is not None and reading.subject is not chunk:
        reading.found.append(_relation(reading.subject, "have", (reading.aux.number,), chunk))
    acts = reading.particle is None and reading.verb is None and (reading.aux is None or reading.subject is None)
    collective = reading.subject is not None and reading.subject is reading.last and reading.subject.head.lemma in COLLECTIVES
    if (reading.particle is not None and reading.particle.text == "of" and collective) or (acts and not reading.joined):
        reading.subject = chunk
    reading.last, reading.particle, reading.added, reading.joined = chunk, None, reading.joined, False
    if not acts and reading.verb is not None:
        reading.verb = None
    reading.aux = None


def _complement(reading: _Reading) -> None:
    """Nothing is left open at the end of a clause."""
    reading.verb = reading.particle = None


def _attribute(chunk: Chunk, modifier: Word) -> Phrase:
    return Phrase((chunk.head.lemma, modifier.lemma), (chunk.head.number, modifier.number))


def _relation(subject: Chunk, name: str, numbers: tuple[int, ...], other: Chunk) -> Phrase:
    return Phrase((subject.head.lemma, name, other.head.lemma), (subject.head.number, *numbers, other.head.number))
