"""Pairs of texts: from records to samples, and from samples to batches."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from common.errors import BadRecord
from common.labels import IGNORED
from dataset.config import TokenizerConfig
from dataset.parallel_config import ParallelTextStream
from dataset.records import Record
from dataset.shards import ShardWriter
from dataset.streams.base import TextSide
from dataset.streams.build import build_stream
from dataset.streams.parallel_text import ParallelTexts
from fake_records import SENTENCES, Records, small_tokenizer

PAIRS = [{"source": f"one {text}", "target": f"two {text} circle"} for text in SENTENCES]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    return small_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def stream(tokenizer: PreTrainedTokenizerBase, records: list[Record] | None = None, **settings: Any) -> ParallelTexts:
    config = ParallelTextStream.model_validate({"shards": "unused", "batch_size": 4, "swap": 0.0} | settings)
    source = Records(list(records or [Record(f"pair{number}", None, pair) for number, pair in enumerate(PAIRS)]))
    return ParallelTexts("parallel", source, config, TextSide(tokenizer, 24, config.masking))


def batch_of(pairs: ParallelTexts) -> dict[str, Tensor]:
    samples = [pairs.sample(number, np.random.default_rng(number)) for number in range(4)]
    return pairs.collate([samples[:2], samples[2:]], [np.random.default_rng(0)] * 2)


def test_a_batch_has_both_texts_and_hidden_tokens_of_the_first(tokenizer: PreTrainedTokenizerBase) -> None:
    batch = batch_of(stream(tokenizer))
    for end, side in (("", "source"), ("_2", "target")):
        ids, mask = batch[f"text_ids{end}"], batch[f"text_mask{end}"]
        assert (ids.dtype, mask.dtype, len(ids)) == (torch.int64, torch.bool, 4)
        read = [row[kept].tolist() for row, kept in zip(ids, mask, strict=True)]
        assert read == [tokenizer(pair[side])["input_ids"] for pair in PAIRS]
        packed = batch[f"text_bins{end}"]
        assert sorted(packed[packed >= 0].tolist()) == mask.flatten().nonzero().flatten().tolist()
    hidden = batch["mlm_labels"] != IGNORED
    assert hidden.any(dim=1).all()
    assert (batch["text_ids"].gather(1, batch["masked_positions"])[hidden] == batch["mlm_labels"][hidden]).all()
    assert batch["group"].tolist() == [0, 0, 1, 1]
    assert len(batch["sample_ids"].unique()) == 4
    assert not [name for name in batch if name.startswith(("pair_", "image"))]


def test_source_and_target_change_places_as_often_as_configured(tokenizer: PreTrainedTokenizerBase) -> None:
    for swap, expected in ((0.0, {"one"}), (1.0, {"two"}), (0.5, {"one", "two"})):
        pairs = stream(tokenizer, swap=swap)
        assert {pairs.sample(0, np.random.default_rng(seed)).rows[0].text[:3] for seed in range(20)} == expected


def test_translation_language_modelling_gets_both_texts_in_one_row(tokenizer: PreTrainedTokenizerBase) -> None:
    batch = batch_of(stream(tokenizer, objectives={"ttc": 1.0, "tlm": 1.0}, masking={"probability": 0.4, "max_masks": 16}))
    kept = batch["pair_mlm_labels"] != IGNORED
    positions = batch["pair_masked_positions"]
    sides = set()
    for row, pair in enumerate(PAIRS):
        whole = tokenizer(pair["source"])["input_ids"] + tokenizer(pair["target"])["input_ids"][1:]
        restored = batch["pair_ids_masked"][row].clone()
        restored[positions[row][kept[row]]] = batch["pair_mlm_labels"][row][kept[row]]
        assert restored[batch["pair_mask"][row]].tolist() == whole
        sides |= {int(place) < len(tokenizer(pair["source"])["input_ids"]) for place in positions[row][kept[row]]}
    assert sides == {True, False}


@pytest.mark.parametrize(
    ("pair", "reason"), [({"source": "a"}, '"target": there is no caption'), ({"source": "?", "target": "b"}, '"source"')]
)
def test_a_pair_without_words_on_one_side_names_record_and_key(
    tokenizer: PreTrainedTokenizerBase, pair: dict[str, str], reason: str
) -> None:
    with pytest.raises(BadRecord, match=f"odd, .*{reason}"):
        stream(tokenizer, [Record("odd", None, pair)]).sample(0, np.random.default_rng(0))


def test_shards_and_json_lines_without_images_give_the_same_samples(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    lines = tmp_path / "pairs.jsonl"
    lines.write_text("".join(json.dumps({"de": pair["source"], "en": pair["target"]}) + "\n" for pair in PAIRS))
    with ShardWriter(tmp_path, "pairs") as writer:
        for number, pair in enumerate(PAIRS):
            writer.write(str(number), None, {"de": pair["source"], "en": pair["target"]})
    found = []
    for file in (lines, tmp_path / "pairs-000000.tar"):
        settings = {"shards": str(file), "batch_size": 4, "source_key": "de", "target_key": "en", "max_tokens": 8}
        opened = build_stream(
            "parallel", ParallelTextStream.model_validate(settings), tokenizer, TokenizerConfig(path="", max_tokens=24), 32, 8
        )
        assert len(opened) == 4
        assert isinstance(opened, ParallelTexts)
        found.append(batch_of(opened))
    torch.testing.assert_close(found[0], found[1])
    assert found[0]["text_mask"].sum(dim=1).max() == 8  # the stream's own length, not the tokenizer's
