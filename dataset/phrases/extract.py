"""From a text to its phrase concepts, by one of two backends."""

from typing import Literal, get_args

from dataset.phrases.grammar import extract_by_rules
from dataset.phrases.phrase import Phrase

Backend = Literal["rule", "spacy"]
"""rule: our grammar, which needs nothing. spacy: spaCy's parser, where the package and its model en_core_web_sm are installed."""
BACKENDS: tuple[Backend, ...] = get_args(Backend)


def extract(text: str, backend: Backend = "rule") -> list[tuple[str, ...]]:
    """The phrase concepts of a text, each once, in alphabetical order.

    Raises:
        UserError: spaCy or its model is not installed.
    """
    return [phrase.parts for phrase in phrases_of(text, backend)]


def phrases_of(text: str, backend: Backend = "rule") -> list[Phrase]:
    """As `extract`, with the words that each phrase was read from; of equal phrases all words."""
    if backend == "spacy":
        from dataset.phrases.spacy_backend import extract_by_spacy  # here because few have spaCy

        found = extract_by_spacy(text)
    else:
        found = extract_by_rules(text)
    words: dict[tuple[str, ...], dict[int, None]] = {}
    for phrase in found:
        words.setdefault(phrase.parts, {}).update(dict.fromkeys(phrase.words))
    return [Phrase(parts, tuple(words[parts])) for parts in sorted(words)]
