"""Objects, attributes and relations of a caption from spaCy's dependency parse."""

from __future__ import annotations

from functools import cache
from typing import Any

from common.errors import UserError
from dataset.phrases.phrase import Phrase
from dataset.phrases.tagging import WORD

MODEL = "en_core_web_sm"
MODIFIERS = ("amod", "compound", "nummod")
SUBJECTS = ("nsubj", "nsubjpass")
OBJECTS = ("dobj", "attr", "oprd")


def extract_by_spacy(text: str) -> list[Phrase]:
    """The phrases of a caption, in the order of its words.

    Raises:
        UserError: spaCy or its model is not installed.
    """
    lowered = text.lower()
    starts = [match.span() for match in WORD.finditer(lowered)]
    return phrases_of_parse(list(_parser()(lowered)), starts)


def phrases_of_parse(tokens: list[Any], spans: list[tuple[int, int]]) -> list[Phrase]:
    """Phrases of a parsed text.

    Args:
        tokens: of spaCy, with dep_, pos_, lemma_, head, children and idx.
        spans: first and behind the last letter of each word, as `words_of` counts them.
    """

    def number(token: Any) -> int:
        return next((place for place, (start, end) in enumerate(spans) if start <= token.idx < end), -1)

    def relation(subject: Any, link: list[Any], name: str, other: Any) -> Phrase:
        parts = (subject.lemma_, name, other.lemma_)
        return Phrase(parts, tuple(map(number, (subject, *link, other))))

    found: list[Phrase] = []
    for token in tokens:
        if token.pos_ not in ("NOUN", "PROPN"):
            continue
        if token.dep_ != "compound":
            found.append(Phrase((token.lemma_,), (number(token),)))
        for child in token.children:
            if child.dep_ in MODIFIERS and child.pos_ != "DET":
                found.append(Phrase((token.lemma_, child.text), (number(token), number(child))))
            elif child.dep_ == "poss" and child.pos_ in ("NOUN", "PROPN"):
                found.append(relation(child, [], "have", token))
            elif child.dep_ == "prep":
                found += [relation(token, [child], child.lemma_, other) for other in _objects(child, ("pobj",))]
            elif child.dep_ in ("acl", "relcl"):
                found += _of_verb(token, child, relation)
    for verb in (token for token in tokens if token.pos_ in ("VERB", "AUX")):
        for subject in (child for child in verb.children if child.dep_ in SUBJECTS and child.pos_ in ("NOUN", "PROPN")):
            for actor in (subject, *_conjuncts(subject)):
                found += _of_verb(actor, verb, relation)
                found += [
                    Phrase((actor.lemma_, child.text), (number(actor), number(child)))
                    for child in verb.children
                    if child.dep_ == "acomp" and child.pos_ == "ADJ"
                ]
    return found


def _of_verb(subject: Any, verb: Any, relation: Any) -> list[Phrase]:
    found = [relation(subject, [verb], verb.lemma_, other) for other in _objects(verb, OBJECTS)] if verb.lemma_ != "be" else []
    for child in verb.children:
        if child.dep_ == "prep":
            link, name = ([child], child.lemma_) if verb.lemma_ == "be" else ([verb, child], f"{verb.lemma_} {child.lemma_}")
            found += [relation(subject, link, name, other) for other in _objects(child, ("pobj",))]
        elif child.dep_ == "conj" and child.pos_ == "VERB":
            found += _of_verb(subject, child, relation)
    return found


def _objects(token: Any, kinds: tuple[str, ...]) -> list[Any]:
    direct = [child for child in token.children if child.dep_ in kinds and child.pos_ in ("NOUN", "PROPN")]
    return [other for child in direct for other in (child, *_conjuncts(child))]


def _conjuncts(token: Any) -> list[Any]:
    return [child for child in token.children if child.dep_ == "conj" and child.pos_ in ("NOUN", "PROPN")]


@cache
def _parser() -> Any:
    try:
        import spacy  # pyright: ignore[reportMissingImports]

        return spacy.load(MODEL)
    except (ImportError, OSError) as error:
        raise UserError(
            f"The spaCy backend needs spaCy and its model {MODEL} (pip install spacy; spacy download {MODEL}). Or use rule."
        ) from error
