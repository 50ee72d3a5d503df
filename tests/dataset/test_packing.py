"""Texts laid end to end."""

import pytest
import torch
from numpy.random import default_rng
from torch import Tensor

from common.labels import HOLE
from dataset.config import MaskingConfig
from dataset.packing import MULTIPLE, ONE_ROW, text_bins
from dataset.streams.base import PlacedRow, TextRow, TextSide
from fake_records import small_tokenizer


@pytest.mark.parametrize("count", [1, 5, 200])
def test_every_token_stands_in_one_place_and_texts_stay_whole(count: int) -> None:
    lengths = default_rng(count).integers(3, 41, count).tolist()
    bins = text_bins(lengths, 40)
    found = [place for place in bins.flatten().tolist() if place != HOLE]
    assert sorted(found) == [text * 40 + position for text, length in enumerate(lengths) for position in range(length)]
    for row in bins.tolist():
        places = [place for place in row if place != HOLE]
        starts = [place for place in places if place % 40 == 0]
        assert places == [place for start in starts for place in range(start, start + lengths[start // 40])]  # in order, unbroken
    assert bins.shape[1] % MULTIPLE == 0


def test_few_tokens_share_one_row_and_many_fill_rows_nearly_whole() -> None:
    few = [12] * 8
    assert text_bins(few, 16).shape == (1, 96)
    many = default_rng(0).integers(3, 24, 500).tolist()
    bins = text_bins(many, 24)
    assert bins.shape[1] == ONE_ROW
    assert (bins == HOLE).float().mean() < 0.03
    assert text_bins([150, 150], 152).shape == (2, 152)  # longer than a row


def tensors(text: TextSide) -> dict[str, Tensor]:
    rows = [PlacedRow(TextRow(f"number {number}", number), number, 0, default_rng(number)) for number in range(3)]
    return text.tensors(rows)


def test_padding_is_packed_to_the_longest_or_to_the_limit(tmp_path) -> None:
    tokenizer = small_tokenizer(tmp_path)
    packed, batch, most = (tensors(TextSide(tokenizer, 24, MaskingConfig(), padding)) for padding in ("packed", "batch", "max"))
    assert packed.keys() - batch.keys() == {"text_bins"}
    assert all(torch.equal(batch[key], packed[key]) for key in batch)
    assert int((packed["text_bins"] != HOLE).sum()) == int(batch["text_mask"].sum())
    assert most["text_ids"].shape == most["text_ids_masked"].shape == (3, 24) != batch["text_ids"].shape
