"""Words with their phrases and tags as token sequences, some of them hidden (MVP, arXiv 2201.12596, section 3).

Shapes: R rows, L text positions, T tag positions, M hidden positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from common.labels import IGNORED
from dataset.concepts import ConceptMasking
from dataset.masking import MASKED, RANDOM
from dataset.phrases import Phrase, PhraseVocabulary
from dataset.phrases.tagging import WORD
from dataset.phrases.vocabulary import token_map
from dataset.tokenizers import pad_rows, padded_length

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class ConceptText:
    """`[CLS] words phrases [SEP]` before anything is hidden."""

    ids: list[int]
    words: int
    """Word pieces; phrases begin at 1 + words."""
    phrases: list[Phrase]
    phrase_ids: list[int]
    token_words: list[int | None]
    """Which word of the text each position up to the last word piece belongs to."""

    @property
    def phrase_positions(self) -> range:
        """Where the phrases are."""
        return range(1 + self.words, 1 + self.words + len(self.phrases))


@dataclass(frozen=True)
class Hidden:
    """A sequence with hidden entries, and what they were."""

    ids: list[int]
    positions: list[int]
    labels: list[int]


class ConceptTexts:
    """Makes token sequences of captions and tags.

    Args:
        tokenizer: of both.
        vocabulary: of phrases.
        max_tokens: longest text, [CLS] and [SEP] included.
        reserve: positions beside them that only phrases take; they also take those that a short text leaves.
        max_tag_tokens: longest sequence of tags.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, vocabulary: PhraseVocabulary, max_tokens: int, reserve: int, max_tag_tokens: int
    ) -> None:
        self.tokenizer, self.vocabulary = tokenizer, vocabulary
        self.max_tokens, self.reserve, self.max_tag_tokens = max_tokens, reserve, max_tag_tokens
        ids = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id, tokenizer.pad_token_id
        assert all(isinstance(entry, int) for entry in ids), "load_tokenizer checks this"
        self.cls_id, self.sep_id, self.mask_id, self.pad_id = (int(entry) for entry in ids)  # pyright: ignore[reportArgumentType]

    @property
    def length(self) -> int:
        """Longest text with its phrases."""
        return self.max_tokens + self.reserve

    def text(self, text: str, phrases: Sequence[Phrase]) -> ConceptText:
        """A normalised caption with those of its phrases that the vocabulary has."""
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        room = self.max_tokens - 2
        pieces, offsets = encoded["input_ids"][:room], encoded["offset_mapping"][:room]  # pyright: ignore[reportIndexIssue]
        starts = [match.start() for match in WORD.finditer(text)]
        ends = [match.end() for match in WORD.finditer(text)]
        places = np.searchsorted(starts, [start for start, _ in offsets], side="right") - 1
        words = [int(place) if place >= 0 and start < ends[place] else None for place, (start, _) in zip(places, offsets, strict=True)]
        known = self.vocabulary.encode(phrases)[: self.length - 2 - len(pieces)]
        ids = [entry for entry, _ in known]
        return ConceptText([self.cls_id, *pieces, *ids, self.sep_id], len(pieces), [phrase for _, phrase in known], ids, [None, *words])

    def tag_ids(self, tags: Sequence[str]) -> list[int]:
        """`[CLS] tags [SEP]`, each tag once, in their order."""
        pieces: list[int] = []
        for tag in dict.fromkeys(tag.lower() for tag in tags):
            pieces += self.tokenizer(tag, add_special_tokens=False)["input_ids"]  # pyright: ignore[reportOperatorIssue]
        return [self.cls_id, *pieces[: self.max_tag_tokens - 2], self.sep_id]

    def hide_words(self, ids: Sequence[int], places: range, share: float, rng: np.random.Generator) -> Hidden:
        """Hide each of some positions with this probability; what stands for it may be any entry of the tokenizer."""
        hidden, positions = list(ids), []
        for place, (chosen, kind, entry) in zip(places, rng.random((len(places), 3)).tolist(), strict=True):
            if chosen < share:
                positions.append(place)
                hidden[place] = self.mask_id if kind < MASKED else int(entry * len(self.tokenizer)) if kind < RANDOM else ids[place]
        return Hidden(hidden, positions, [ids[place] for place in positions])

    def hide_phrases(self, text: ConceptText, words: Hidden, share: float, rng: np.random.Generator) -> Hidden:
        """Hide the phrases that hidden words are part of, and each other one with this probability.

        Returns:
            The sequence with hidden words and phrases; positions and classes of the phrases that were hidden by chance. Those that were
            hidden for a word's sake cannot be told from what is left.
        """
        of_token = token_map(text.phrases, text.token_words)
        forced = {phrase for position in words.positions for phrase in of_token.get(position, ())}
        hidden, positions, labels = list(words.ids), [], []
        draws = rng.random((len(text.phrases), 3)).tolist()
        for phrase, (place, (chosen, kind, entry)) in enumerate(zip(text.phrase_positions, draws, strict=True)):
            if phrase in forced:
                hidden[place] = self.mask_id
            elif chosen < share:
                positions.append(place)
                labels.append(self.vocabulary.classes[text.phrase_ids[phrase]])
                if kind < RANDOM:
                    hidden[place] = self.mask_id if kind < MASKED else self.vocabulary.entries[int(entry * len(self.vocabulary))]
        return Hidden(hidden, positions, labels)

    def text_tensors(
        self, texts: Sequence[ConceptText], masking: ConceptMasking | None, rngs: Sequence[np.random.Generator]
    ) -> dict[str, Tensor]:
        """text_ids, text_mask, phrase_mask [R, L]; with masking masked_positions, mlm_labels, masked_phrase_positions and phrase_labels
        [R, M]."""
        rows, tensors = [text.ids for text in texts], {}
        if masking is not None:
            pairs = list(zip(texts, rngs, strict=True))
            words = [self.hide_words(text.ids, range(1, 1 + text.words), masking.words, rng) for text, rng in pairs]
            both = [self.hide_phrases(text, hidden, masking.phrases, rng) for (text, rng), hidden in zip(pairs, words, strict=True)]
            rows = [hidden.ids for hidden in both]
            tensors |= hidden_tensors(words, "masked_positions", "mlm_labels") | hidden_tensors(
                both, "masked_phrase_positions", "phrase_labels"
            )
        width = padded_length(max(map(len, rows)), self.length)
        phrases = [[int(place in text.phrase_positions) for place in range(len(text.ids))] for text in texts]
        return tensors | {
            "text_ids": pad_rows(rows, width, self.pad_id),
            "text_mask": pad_rows([[1] * len(row) for row in rows], width, 0).bool(),
            "phrase_mask": pad_rows(phrases, width, 0).bool(),
        }

    def tag_tensors(
        self, tags: Sequence[Sequence[str]], masking: ConceptMasking | None, rngs: Sequence[np.random.Generator]
    ) -> dict[str, Tensor]:
        """tag_ids, tag_mask [R, T]; with masking masked_tag_positions, tag_labels [R, M]."""
        rows, tensors = [self.tag_ids(row) for row in tags], {}
        if masking is not None:
            hidden = [self.hide_words(row, range(1, len(row) - 1), masking.tags, rng) for row, rng in zip(rows, rngs, strict=True)]
            rows, tensors = [row.ids for row in hidden], hidden_tensors(hidden, "masked_tag_positions", "tag_labels")
        width = padded_length(max(map(len, rows)), self.max_tag_tokens)
        return tensors | {
            "tag_ids": pad_rows(rows, width, self.pad_id),
            "tag_mask": pad_rows([[1] * len(row) for row in rows], width, 0).bool(),
        }


def hidden_tensors(rows: Sequence[Hidden], positions: str, labels: str) -> dict[str, Tensor]:
    """Positions and labels [R, M], M at least 1, padded with position 0 and IGNORED."""
    most = max(1, *(len(row.positions) for row in rows))
    return {
        positions: pad_rows([row.positions for row in rows], most, 0),
        labels: pad_rows([row.labels for row in rows], most, IGNORED),
    }


def region_tensors(rows: Sequence[np.ndarray], name: str) -> dict[str, Tensor]:
    """Rows of regions [V, F] as float32 [R, V, F], padded with zeros, and region_mask [R, V]."""
    width = max(1, *(len(row) for row in rows))
    padded = np.zeros((len(rows), width, rows[0].shape[1]), dtype=np.float32)
    mask = np.zeros((len(rows), width), dtype=bool)
    for index, row in enumerate(rows):
        padded[index, : len(row)], mask[index, : len(row)] = row, True
    return {name: torch.from_numpy(padded), "region_mask": torch.from_numpy(mask)}
