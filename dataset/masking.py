"""Whole-word, skip-gram masking of a token sequence (X2-VLM, UniLM)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dataset.config import MaskingConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MASKED, RANDOM = 0.8, 0.9
"""A hidden token becomes [MASK] 80 % of the time, a random entry of the vocabulary 10 %, and stays as it is 10 %."""


@dataclass(frozen=True)
class MaskVocabulary:
    """What masking needs to know of a tokenizer."""

    size: int
    mask_id: int
    continuations: frozenset[int]
    """Ids of pieces that continue a word ("##..."); empty for vocabularies that do not mark them."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> MaskVocabulary:
        mask_id = tokenizer.mask_token_id
        assert isinstance(mask_id, int), "load_tokenizer checks this"
        continuations = frozenset(index for token, index in tokenizer.get_vocab().items() if token.startswith("##"))
        return cls(len(tokenizer), mask_id, continuations)


@dataclass(frozen=True)
class MaskedText:
    """A text with hidden tokens."""

    ids: list[int]
    """The whole sequence after replacement."""
    positions: list[int]
    """The hidden positions, rising."""
    labels: list[int]
    """The true ids at these positions."""


def mask_tokens(ids: Sequence[int], vocabulary: MaskVocabulary, config: MaskingConfig, rng: np.random.Generator) -> MaskedText:
    """Hide some tokens of `ids` ([CLS] first, [SEP] last).

    [CLS] is never hidden, [SEP] may be. Random replacements are drawn from the whole vocabulary, special tokens included.
    """
    positions = choose_positions(ids, vocabulary, config, rng)
    masked = list(ids)
    for position, (kind, entry) in zip(positions, rng.random((len(positions), 2)).tolist(), strict=True):
        if kind < MASKED:
            masked[position] = vocabulary.mask_id
        elif kind < RANDOM:
            masked[position] = int(entry * vocabulary.size)
    return MaskedText(masked, positions, [ids[position] for position in positions])


def choose_positions(ids: Sequence[int], vocabulary: MaskVocabulary, config: MaskingConfig, rng: np.random.Generator) -> list[int]:
    """The positions to hide, rising; min(max_masks, max(1, round(len(ids) * probability))) of them where there are enough.

    `round` is Python's, half to even. Starting points are visited in random order; each starts a span of one token or, as a skip-gram,
    of 2 to `skipgram_size`, extended on both sides to whole words. What is collected beyond the wanted number is dropped at random.
    """
    wanted = min(config.max_masks, max(1, round(len(ids) * config.probability)))
    chosen: set[int] = set()
    for start in (rng.permutation(len(ids) - 1) + 1).tolist():
        if len(chosen) >= wanted:
            break
        if start in chosen:
            continue
        end = start + _span(config, rng)
        if config.whole_word:
            while start > 0 and ids[start] in vocabulary.continuations:
                start -= 1
            while end < len(ids) and ids[end] in vocabulary.continuations:
                end += 1
        if start > 0:  # a continuation right after [CLS] has no word to belong to
            chosen.update(range(start, min(end, len(ids))))
    positions = sorted(chosen)
    if len(positions) > wanted:
        positions = sorted(rng.permutation(positions)[:wanted].tolist())
    return positions


def _span(config: MaskingConfig, rng: np.random.Generator) -> int:
    """Length of the span to hide: 1, or as a skip-gram uniform in 2 .. skipgram_size."""
    if config.skipgram_size < 2 or rng.random() >= config.skipgram_probability:
        return 1
    return 2 + int(rng.random() * (config.skipgram_size - 1))
