"""Synthetic batches, and what of a batch is padding."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bench_request import bench_request
from common.errors import UserError
from dataset.config import MaskingConfig
from dataset.text import pre_caption
from engine.bench.batches import Fill, make_supply
from engine.bench.synthetic import CAPTIONS, PHRASES, TextLengths, numbered_tokenizer

COCO = Path(__file__).parents[3].parent / "shared" / "data" / "coco_mini" / "annotations"


def lengths(distribution: TextLengths, count: int = 20_000) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.array([distribution.draw(rng, 40) for _ in range(count)])


@pytest.mark.parametrize("distribution", [CAPTIONS, PHRASES])
def test_text_lengths_have_their_stated_mean_and_spread_and_a_long_tail(distribution: TextLengths) -> None:
    drawn = lengths(distribution)
    assert drawn.mean() == pytest.approx(distribution.mean, rel=0.02)
    assert drawn.std() == pytest.approx(distribution.std, rel=0.1)
    assert drawn.min() >= distribution.least
    assert drawn.max() <= 40
    assert drawn.mean() > np.median(drawn)


@pytest.mark.skipif(not COCO.is_dir(), reason="the slice of COCO is not beside the project")
def test_captions_are_spread_as_those_of_coco() -> None:
    files = sorted(COCO.glob("captions_*.json"))
    texts = [item["caption"] for file in files for item in json.loads(file.read_text())["annotations"]]
    real = np.array([len(pre_caption(text, 40).split(" ")) + 2 for text in texts])
    drawn = lengths(CAPTIONS)
    assert np.percentile(drawn, [5, 50, 95]) - drawn.mean() == pytest.approx(np.percentile(real, [5, 50, 95]) - real.mean(), abs=1.0)


def test_batches_are_made_of_the_config_alone_and_differ_from_step_to_step(tmp_path: Path) -> None:
    request = bench_request(tmp_path, "engine.accumulation=2")
    supply = make_supply(request, 2)
    first, second, *_ = loaded = list(supply)
    assert len(loaded) == 4
    regions = first["regions"].tensors
    assert [len(regions[key]) for key in ("image", "text_ids", "patch_mask")] == [2, 6, 6]  # half of 4 images and 12 texts
    assert first["images"].tensors["image"].shape == (4, 3, 32, 32)
    assert not torch.equal(first["images"].tensors["image"], second["images"].tensors["image"])
    again = next(make_supply(request, 2))
    assert all(torch.equal(value, again["regions"].tensors[key]) for key, value in regions.items())
    widths = {batch["images"].tensors["text_ids"].shape[1] for batch in make_supply(replace(request, steps=9), 9)}
    assert len(widths) > 1


def test_fixed_length_fills_every_text_and_must_fit(tmp_path: Path) -> None:
    request = bench_request(tmp_path, fixed_length=12)
    tensors = next(make_supply(request, 1))["regions"].tensors
    assert tensors["text_mask"].all() and tensors["text_mask"].shape[1] == 12
    assert tensors["masked_positions"].shape[1] == min(MaskingConfig().max_masks, 6)
    with pytest.raises(UserError, match=r"--fixed-length 41: must be between 3 and tokenizer\.max_tokens, 40"):
        make_supply(replace(request, fixed_length=41), 1)


def test_numbered_tokenizer_reads_numbers_and_pads_with_the_models_id() -> None:
    for pad in (0, 1):
        tokenizer = numbered_tokenizer(30, pad)
        assert tokenizer("w5 w29")["input_ids"] == [tokenizer.cls_token_id, 5, 29, tokenizer.sep_token_id]
        assert (len(tokenizer), tokenizer.pad_token_id) == (30, pad)


def test_padding_and_masked_keys_of_a_known_batch() -> None:
    fill = Fill()
    batch = {
        "image": torch.zeros(1, 3, 8, 8),
        "text_mask": torch.tensor([[True, True, True, False], [True, False, False, False]]),
        "mlm_labels": torch.tensor([[7, -100], [-100, -100]]),
        "patch_mask": torch.tensor([[True, False, False], [True, True, False]]),
    }
    fill.add(batch)
    fill.add(batch)
    assert fill.numbers() == {
        "tokens_per_text": 2.0,
        "text_padding_share": 0.5,
        "masked_position_padding_share": 0.75,
        "vision_key_masked_share": pytest.approx(1 - 5 / 8),  # 1 + 2 patches and two global tokens of 2 x 4 keys
    }
    assert (fill.rows, fill.images) == (4, 2)
