"""The number of processes does not change losses, gradients or batches."""

from pathlib import Path

import pytest

from engine.checkpoints import SavedTensors
from small_run import curve, pretrain_settings, run, write_config


@pytest.fixture(scope="module")
def config(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = pretrain_settings(small_data, steps=3)
    settings["engine"] |= {"checkpoint_every": 1, "keep_checkpoints": 3}
    # dropout draws from one stream a rank; everything else is a function of the sample
    settings["model"] = settings["model"] | {
        "vision": settings["model"]["vision"] | {"drop_path": 0.0},
        "text": settings["model"]["text"] | {"dropout": 0.0},
    }
    return write_config(tmp_path_factory.mktemp("ranks") / "config.yaml", settings)


@pytest.fixture(scope="module")
def alone(config: Path) -> Path:
    done = run("pretrain", config, config.parent / "alone")
    assert done.returncode == 0, done.stderr
    return config.parent / "alone"


def test_two_processes_give_the_losses_and_gradients_of_one(config: Path, alone: Path, tmp_path: Path) -> None:
    done = run("pretrain", config, tmp_path / "two", "--nproc", "2")
    assert done.returncode == 0, done.stderr
    one, two = curve(alone), curve(tmp_path / "two")
    assert one.keys() == two.keys()
    for step, numbers in one.items():
        assert "gradient_norm" in numbers
        # later steps start from weights in which Adam has magnified the rounding of the first
        assert two[step] == pytest.approx(numbers, rel=2e-5 if step == 1 else 1e-3, abs=2e-6), f"step {step}"
    saved = [(folder / "checkpoints/step-00000001").glob("optimizer*.safetensors") for folder in (alone, tmp_path / "two")]
    first, second = (SavedTensors(files) for files in saved)  # every rank wrote a share
    assert first.keys() == second.keys()
    moments = [name for name in first if name.endswith("|exp_avg")]  # after one step: the gradients, parameter by parameter
    assert moments
    for name in moments:
        assert (first[name] - second[name]).abs().max() <= 1e-5 * max(1.0, first[name].abs().max().item()), name


def test_paper_mode_divides_the_contrastive_gradient(config: Path, alone: Path, tmp_path: Path) -> None:
    done = run("pretrain", config, tmp_path / "paper", "--nproc", "2", "--set", "gradient_mode=paper")
    assert done.returncode == 0, done.stderr
    exact, paper = curve(alone)[1], curve(tmp_path / "paper")[1]
    assert paper["images/itc"] == pytest.approx(exact["images/itc"], rel=1e-5)  # the same loss...
    assert abs(paper["gradient_norm"] / exact["gradient_norm"] - 1) > 0.01  # ...with another gradient


def test_accumulated_micro_batches_read_the_same_samples(config: Path, alone: Path, tmp_path: Path) -> None:
    done = run("pretrain", config, tmp_path / "two", "--set", "engine.accumulation=2")
    assert done.returncode == 0, done.stderr
    # each micro-batch draws its negatives within its groups, so matching is the same; contrast is within a micro-batch
    first, second = curve(alone)[1], curve(tmp_path / "two")[1]
    assert second["images/itm"] == pytest.approx(first["images/itm"], rel=1e-5)
    assert second["images/itc"] < first["images/itc"]
