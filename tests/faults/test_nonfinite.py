"""A loss that is not a number never reaches the weights, on any rank, under any strategy."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from small_run import ROOT, command, curve, pretrain_settings, saved, write_config
from warm_start import run_warm

SCRIPT = ROOT / "tests/support/faulty_run.py"
STEPS = 6


def play(settings: dict[str, Any], output: Path, scene: str, *more: str) -> subprocess.CompletedProcess[str]:
    config = write_config(output.with_suffix(".yaml"), settings)
    words = [sys.executable, str(SCRIPT), "launch", *command("pretrain", config, output, *more)[2:]]
    return run_warm(words, SCENE=scene)


def settings_for(data: Path) -> dict[str, Any]:
    settings = pretrain_settings(data, STEPS)
    settings["engine"] |= {"checkpoint_every": 1, "keep_checkpoints": STEPS}
    return settings


@pytest.mark.slow
@pytest.mark.parametrize(
    ("value", "strategy"),
    [
        ("nan", ("--nproc", "2")),
        ("inf", ("--nproc", "1", "--set", "optimizer.implementation=single")),
        ("nan", ("--nproc", "2", "--set", "engine.strategy=fsdp")),
        ("inf", ("--nproc", "2", "--set", "engine.strategy=deepspeed", "engine.zero_stage=2")),
    ],
)
def test_a_bad_step_of_one_rank_changes_no_weight_and_training_goes_on(
    small_data: Path, tmp_path: Path, value: str, strategy: tuple[str, ...]
) -> None:
    rank = "1" if "2" in strategy[:2] else "0"
    done = play(settings_for(small_data), tmp_path / "run", f"poison {value} {rank} 3 3", *strategy)
    assert done.returncode == 0, done.stderr
    for kind in ("model", "optimizer"):
        before, after, later = (saved(tmp_path / "run", step, kind) for step in (2, 3, 4))
        assert all(torch.equal(before[name], after[name]) for name in before), kind
        assert any(not torch.equal(after[name], later[name]) for name in after), kind
    assert "step 3 left out" in done.stderr
    numbers = curve(tmp_path / "run")
    assert all(value == value for step, line in numbers.items() if step != 3 for value in line.values())
    assert numbers[STEPS]["nonfinite_steps"] == 1
    written = tmp_path / f"run/nonfinite/step-00000003-rank-0000{rank}"
    about = json.loads(written.with_suffix(".json").read_text())
    assert about["numbers"]["images/itc"] != about["numbers"]["images/itc"] or about["numbers"]["images/itc"] == float("inf")
    assert len(about["records"]["images"]) == (4 if rank == "1" else 8)
    assert about["config"]["optimizer"]["lr"] == 1e-3
    assert load_file(written.with_suffix(".safetensors"))["images.image"].shape[1] == 3


@pytest.mark.slow
def test_too_many_bad_steps_in_a_row_stop_the_run_with_good_weights(small_data: Path, tmp_path: Path) -> None:
    settings = settings_for(small_data)
    settings["engine"] |= {"max_nonfinite": 1}
    done = play(settings, tmp_path / "run", "poison nan 0 3 99", "--nproc", "2")
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("Loss or gradient was not finite in 2 steps in a row (3, 4); engine.max_nonfinite is 1.")
    newest = max(int(folder.name[5:]) for folder in (tmp_path / "run/checkpoints").glob("step-*"))
    assert all(bool(tensor.isfinite().all()) for tensor in saved(tmp_path / "run", newest, "model").values())
