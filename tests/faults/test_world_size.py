"""A run goes on with more or fewer processes: the same samples in the same order, or an error that says why not."""

import json
from pathlib import Path

import pytest

from dataset.batches import MixedBatches
from dataset.config import ImageTextStream
from dataset.streams.base import TextSide
from dataset.streams.image_text import ImageTexts
from fake_records import image_records, small_tokenizer
from small_run import curve, forget_after, pretrain_settings, run, without_dropout, write_config


def test_every_number_of_ranks_reads_the_same_records_in_the_same_order(tmp_path: Path) -> None:
    """4 ranks, then 2, then 3, then 1 with accumulation: no record of an epoch comes twice or is lost."""
    records, batch, steps = 36, 12, 6  # two epochs
    text = TextSide(small_tokenizer(tmp_path), 16, masking=None)

    def keys(world: int, accumulation: int, step: int) -> list[str]:
        stream = ImageTexts("images", image_records(records), ImageTextStream(shards="none", batch_size=batch, groups=12), text, 16)
        ranks = [MixedBatches({"images": stream}, 3, rank, world, accumulation) for rank in range(world)]
        return [key for micro in range(accumulation) for rank in ranks for key in rank[step * accumulation + micro]["images"].keys]

    expected = [keys(1, 1, step) for step in range(steps)]
    changing = [
        keys(world, accumulation, step) for step, (world, accumulation) in enumerate([(4, 1), (4, 1), (2, 1), (3, 1), (1, 4), (2, 3)])
    ]
    assert changing == expected
    for epoch in (expected[:3], expected[3:]):
        assert sorted(key for step in epoch for key in step) == sorted(f"image{number}" for number in range(records))


@pytest.mark.slow
def test_a_run_goes_on_with_fewer_ranks_or_says_before_training_why_not(small_data: Path, tmp_path: Path) -> None:
    settings = pretrain_settings(small_data, 6)
    settings["engine"] |= {"checkpoint_every": 3}
    settings = without_dropout(settings)
    config = write_config(tmp_path / "config.yaml", settings)
    whole = run("pretrain", config, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    done = run("pretrain", config, tmp_path / "run", "--nproc", "2")
    assert done.returncode == 0, done.stderr
    forget_after(tmp_path / "run", 3)
    refused = run("pretrain", config, tmp_path / "run", "--nproc", "3")
    assert refused.returncode == 2
    assert "cannot be split over 3 ranks" in refused.stderr
    done = run("pretrain", config, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "written by 2 ranks, now there is 1 rank: the same samples in the same order" in done.stderr
    assert json.loads((tmp_path / "run/metrics.json").read_text())["records_read"] == 6 * (8 + 4)
    expected, found = curve(tmp_path / "whole"), curve(tmp_path / "run")
    for step, numbers in expected.items():
        assert found[step] == pytest.approx(numbers, rel=2e-3, abs=1e-4), f"step {step}"
