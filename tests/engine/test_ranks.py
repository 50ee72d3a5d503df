"""The number of processes does not change losses, gradients or batches."""

import json
from pathlib import Path

import pytest

from small_run import curve, pretrain_settings, run, saved, without_dropout, write_config


@pytest.fixture(scope="module")
def config(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = pretrain_settings(small_data, steps=3)
    settings["engine"] |= {"checkpoint_every": 1, "keep_checkpoints": 3}
    folder = tmp_path_factory.mktemp("ranks")
    pairs = [
        {"source": f"a {color} {shape}", "target": f"{shape} {color} a"} for color in ("red", "blue") for shape in ("ring", "star", "cross")
    ]
    (folder / "pairs.jsonl").write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs))
    parallel = {"kind": "parallel_text", "shards": str(folder / "pairs.jsonl"), "batch_size": 8}
    settings["streams"] = {"parallel": parallel, **settings["streams"]}
    for stream in settings["streams"].values():
        stream["groups"] = 4
    settings = without_dropout(settings)
    return write_config(folder / "config.yaml", settings)


@pytest.fixture(scope="module")
def alone(config: Path) -> Path:
    done = run("pretrain", config, config.parent / "alone")
    assert done.returncode == 0, done.stderr
    return config.parent / "alone"


@pytest.mark.parametrize(("processes", "accumulation"), [(2, 1), (1, 4), (2, 2)])
def test_processes_and_accumulation_give_the_losses_and_gradients_of_one_batch(
    config: Path, alone: Path, tmp_path: Path, processes: int, accumulation: int
) -> None:
    done = run("pretrain", config, tmp_path / "two", "--nproc", str(processes), "--set", f"engine.accumulation={accumulation}")
    assert done.returncode == 0, done.stderr
    one, two = curve(alone), curve(tmp_path / "two")
    assert one.keys() == two.keys()
    for step, numbers in one.items():
        assert "gradient_norm" in numbers
        # later steps start from weights in which Adam has magnified the rounding of the first
        assert two[step] == pytest.approx(numbers, rel=2e-5 if step == 1 else 1e-3, abs=2e-6), f"step {step}"
    first, second = (saved(folder, 1, "optimizer") for folder in (alone, tmp_path / "two"))
    moments = [name for name in first if name.endswith("|exp_avg")]  # after one step: the gradients, parameter by parameter
    assert moments
    for name in moments:
        assert (first[name] - second[name]).abs().max() <= 1e-5 * max(1.0, first[name].abs().max().item()), name


def test_paper_mode_divides_the_contrastive_gradient(config: Path, alone: Path, tmp_path: Path) -> None:
    done = run("pretrain", config, tmp_path / "paper", "--nproc", "2", "--set", "gradient_mode=paper")
    assert done.returncode == 0, done.stderr
    exact, paper = curve(alone)[1], curve(tmp_path / "paper")[1]
    for name in ("images/itc", "parallel/ttc"):
        assert paper[name] == pytest.approx(exact[name], rel=1e-5)  # the same losses...
    assert abs(paper["gradient_norm"] / exact["gradient_norm"] - 1) > 0.01  # ...with another gradient


def test_contrast_within_micro_batches_is_another_loss_over_the_same_samples(config: Path, alone: Path, tmp_path: Path) -> None:
    options = ("--set", "engine.accumulation=2", "--set", "engine.accumulate_contrast=micro")
    done = run("pretrain", config, tmp_path / "two", *options)
    assert done.returncode == 0, done.stderr
    # each micro-batch draws its negatives within its groups, so matching is the same
    first, second = curve(alone)[1], curve(tmp_path / "two")[1]
    for name in ("images/itm", "images/mlm", "regions/mlm", "regions/box_l1"):
        assert second[name] == pytest.approx(first[name], rel=1e-5), name
    assert second["images/itc"] < first["images/itc"]
