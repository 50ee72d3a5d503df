"""Phrase concepts as rows of the embedding table (MVP, arXiv 2201.12596, section 3.1).

A one-word phrase that is one entry of the tokenizer has that entry's id, so that the two share a row. The others follow behind the
tokenizer's entries: composites first, then words of several pieces.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import UserError
from common.files import replace_file
from dataset.phrases.phrase import Phrase

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PhraseVocabulary:
    """Ids of phrases.

    Args:
        ids: phrase -> row of the embedding table.
    """

    def __init__(self, ids: Mapping[tuple[str, ...], int]) -> None:
        self.ids = dict(ids)
        self.entries = sorted(set(self.ids.values()))
        """All ids, rising; the place of an id among them is its class where phrases are predicted."""
        self.classes = {entry: place for place, entry in enumerate(self.entries)}

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def rows(self) -> int:
        """Rows that the embedding table needs."""
        return self.entries[-1] + 1 if self.entries else 0

    @classmethod
    def build(
        cls,
        sentences: Iterable[Iterable[tuple[str, ...]]],
        tokenizer: PreTrainedTokenizerBase,
        min_count: int = 50,
        max_size: int | None = None,
    ) -> PhraseVocabulary:
        """Number the phrases of a corpus.

        Args:
            sentences: the phrases of each sentence.
            tokenizer: of the texts.
            min_count: a phrase that fewer sentences hold is left out; 50 in the paper.
            max_size: at most so many phrases, the most frequent.
        """
        counts = Counter(phrase for phrases in sentences for phrase in set(phrases))
        ranked = sorted((phrase for phrase, count in counts.items() if count >= min_count), key=lambda phrase: (-counts[phrase], phrase))
        kept = sorted(ranked[:max_size])
        entries = tokenizer.get_vocab()
        shared = {phrase: entries[phrase[0]] for phrase in kept if len(phrase) == 1 and phrase[0] in entries}
        composites = [phrase for phrase in kept if len(phrase) > 1]
        words = [phrase for phrase in kept if len(phrase) == 1 and phrase not in shared]
        return cls(shared | {phrase: len(tokenizer) + place for place, phrase in enumerate([*composites, *words])})

    @classmethod
    def load(cls, path: Path) -> PhraseVocabulary:
        """Read a JSON file {id: [word, ...]}, as published (`id2phrase_new.json`) or as `save` writes it.

        Raises:
            UserError: the file is missing or not such a file.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            ids = {tuple([words] if isinstance(words, str) else map(str, words)): int(key) for key, words in content.items()}
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); scripts/prepare_data.py phrases writes it") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: is not a phrase vocabulary, a JSON object of id -> list of words") from error
        if not ids:
            raise UserError(f"{path}: the phrase vocabulary is empty; lower --min_count")
        return cls(ids)

    def save(self, path: Path) -> None:
        """Write the file that `load` reads."""
        content = {str(entry): list(phrase) for phrase, entry in sorted(self.ids.items(), key=lambda item: item[1])}
        replace_file(path, json.dumps(content, ensure_ascii=False, indent=0) + "\n")

    def encode(self, phrases: Iterable[Phrase]) -> list[tuple[int, Phrase]]:
        """Ids with their phrases; what the vocabulary lacks is left out."""
        return [(self.ids[phrase.parts], phrase) for phrase in phrases if phrase.parts in self.ids]


def token_map(phrases: Sequence[Phrase], token_words: Sequence[int | None]) -> dict[int, list[int]]:
    """Which phrases each token is part of.

    Args:
        phrases: of a text.
        token_words: which word of the text each token belongs to; None for none, such as [CLS].

    Returns:
        Token -> phrases, by their places; tokens of no phrase are left out.
    """
    of_word: dict[int, list[int]] = {}
    for place, phrase in enumerate(phrases):
        for word in dict.fromkeys(phrase.words):
            of_word.setdefault(word, []).append(place)
    return {token: of_word[word] for token, word in enumerate(token_words) if word is not None and word in of_word}
