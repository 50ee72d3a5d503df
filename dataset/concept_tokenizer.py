"""A tokenizer that puts a text's phrase concepts behind its words, for tasks that read nothing of a text but its ids (MVP, arXiv
2201.12596, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dataset.concept_text import ConceptTexts
from dataset.concepts import PhraseSettings
from dataset.phrases import Backend, PhraseVocabulary, phrases_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_TAGS = 2
"""Positions of an image without tags: [CLS] and [SEP]."""


class ConceptTokenizer:
    """Gives `[CLS] words phrases [SEP]`; in everything else it is the tokenizer of the words.

    Args:
        texts: makes the sequences, and says how long they may be.
        backend: what reads phrases.
    """

    def __init__(self, texts: ConceptTexts, backend: Backend) -> None:
        self.texts = texts
        self.backend: Backend = backend

    def __call__(self, first: Sequence[str], second: Sequence[str] | None = None, **_: Any) -> dict[str, list[list[int]]]:
        """Ids of texts, as the tokenizer of the words is asked for them; how a text is cut is settled beforehand."""
        assert second is None, "the tasks that read phrases have one text a row"
        return {"input_ids": [self.texts.text(text, phrases_of(text, self.backend)).ids for text in first]}

    def __getattr__(self, name: str) -> Any:
        if name == "texts":  # while it is copied to a worker there is nothing yet
            raise AttributeError(name)
        return getattr(self.texts.tokenizer, name)

    def __len__(self) -> int:
        return len(self.texts.tokenizer)


def with_phrases(tokenizer: PreTrainedTokenizerBase, phrases: PhraseSettings, max_tokens: int) -> PreTrainedTokenizerBase:
    """The tokenizer with phrases read from every text.

    Args:
        tokenizer: of the words.
        phrases: the vocabulary, the reader, and the positions that only phrases take.
        max_tokens: longest text without them, [CLS] and [SEP] included.

    Raises:
        UserError: the vocabulary cannot be read.
    """
    vocabulary = PhraseVocabulary.load(Path(phrases.vocabulary))
    texts = ConceptTexts(tokenizer, vocabulary, max_tokens, phrases.reserve, NO_TAGS)
    return cast("PreTrainedTokenizerBase", ConceptTokenizer(texts, phrases.backend))
