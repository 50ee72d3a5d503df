"""Masking for masked language modelling."""

import numpy as np
import pytest

from dataset.config import MaskingConfig
from dataset.masking import MaskVocabulary, choose_positions, mask_tokens
from fake_records import small_tokenizer

CLS, SEP, MASK = 2, 3, 4
PIECES = frozenset(range(50, 60))
VOCABULARY = MaskVocabulary(size=1000, mask_id=MASK, continuations=PIECES)


def sequence(length: int) -> list[int]:
    return [CLS, *range(100, 100 + length - 2), SEP]


@pytest.mark.parametrize(
    ("length", "probability", "most", "expected"), [(5, 0.5, 12, 2), (7, 0.5, 12, 4), (3, 0.1, 12, 1), (40, 0.5, 12, 12)]
)
def test_number_of_masks_rounds_half_to_even_and_keeps_to_its_limits(length, probability, most, expected):
    config = MaskingConfig(probability=probability, max_masks=most, skipgram_probability=0.0)
    for seed in range(20):
        assert len(choose_positions(sequence(length), VOCABULARY, config, np.random.default_rng(seed))) == expected


def test_the_first_token_is_never_hidden_and_the_last_may_be():
    config = MaskingConfig(probability=0.4, skipgram_probability=0.0)
    chosen = [choose_positions(sequence(8), VOCABULARY, config, np.random.default_rng(seed)) for seed in range(200)]
    assert all(0 not in positions for positions in chosen)
    assert any(7 in positions for positions in chosen)


def test_pieces_of_a_word_are_hidden_together():
    ids = [CLS, 100, 50, 51, 101, 102, 52, SEP]  # words at 1-3, 4, 5-6
    config = MaskingConfig(probability=0.4, max_masks=12, skipgram_probability=0.0)
    whole = 0
    for seed in range(200):
        positions = set(choose_positions(ids, VOCABULARY, config, np.random.default_rng(seed)))
        whole += {1, 2, 3} <= positions
        assert len(positions) == 3
    off = config.model_copy(update={"whole_word": False})
    alone = sum({1, 2, 3} <= set(choose_positions(ids, VOCABULARY, off, np.random.default_rng(seed))) for seed in range(200))
    assert whole > 3 * max(alone, 1)


def test_skipgrams_hide_neighbours():
    lone = MaskingConfig(probability=0.12, skipgram_probability=0.0)
    spans = MaskingConfig(probability=0.12, skipgram_probability=1.0, skipgram_size=3)

    def neighbours(config: MaskingConfig) -> int:
        chosen = [choose_positions(sequence(17), VOCABULARY, config, np.random.default_rng(seed)) for seed in range(200)]
        return sum(len(positions) == 2 and positions[1] - positions[0] <= 2 for positions in chosen)

    assert neighbours(lone) < 80 < 180 < neighbours(spans)


def test_hidden_tokens_become_mask_random_or_stay_in_the_published_shares():
    config = MaskingConfig(probability=0.5, max_masks=100)
    ids = sequence(100)
    rng = np.random.default_rng(0)
    masked = random = kept = 0
    for _ in range(100):
        text = mask_tokens(ids, VOCABULARY, config, rng)
        assert text.labels == [ids[position] for position in text.positions]
        for position in range(len(ids)):
            if position not in text.positions:
                assert text.ids[position] == ids[position]
        masked += sum(text.ids[p] == MASK for p in text.positions)
        kept += sum(text.ids[p] == ids[p] for p in text.positions)
        random += sum(text.ids[p] not in (MASK, ids[p]) for p in text.positions)
    total = masked + random + kept
    assert total == 5000
    assert masked / total == pytest.approx(0.8, abs=0.02)
    assert random / total == pytest.approx(0.1, abs=0.02)


def test_pieces_are_taken_from_the_tokenizer(tmp_path):
    tokenizer = small_tokenizer(tmp_path)
    vocabulary = MaskVocabulary.of(tokenizer)
    assert vocabulary.mask_id == tokenizer.convert_tokens_to_ids("[MASK]")
    assert tokenizer.convert_tokens_to_ids("##e") in vocabulary.continuations
    assert tokenizer.convert_tokens_to_ids("e") not in vocabulary.continuations
