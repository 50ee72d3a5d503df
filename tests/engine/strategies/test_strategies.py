"""Losses, gradients and checkpoints do not depend on how ranks share the model."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from small_run import curve, forget_after, pretrain_settings, run, saved, task_settings, without_dropout, write_config

STEPS = 6
STRATEGIES = {
    "ddp": ("engine.strategy=ddp",),
    "fsdp": ("engine.strategy=fsdp",),
    "zero2": ("engine.strategy=deepspeed", "engine.zero_stage=2"),
    "zero3": ("engine.strategy=deepspeed", "engine.zero_stage=3"),
}


def settings_for(data: Path) -> dict[str, Any]:
    settings = pretrain_settings(data, STEPS)
    settings = without_dropout(settings)
    for stream in settings["streams"].values():
        stream["groups"] = 4
    settings["optimizer"] = {"lr": 1e-4}  # small steps, so that rounding stays small
    settings["engine"] |= {"checkpoint_every": 1, "keep_checkpoints": STEPS}
    settings["evaluation"] = {"grounding": {"file": str(data / "grounding_test.json"), "image_root": str(data / "images")}}
    return settings


@pytest.fixture(scope="module")
def alone(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process; its config lies beside it."""
    folder = tmp_path_factory.mktemp("strategies")
    done = run("pretrain", write_config(folder / "config.yaml", settings_for(small_data)), folder / "alone")
    assert done.returncode == 0, done.stderr
    return folder / "alone"


def compare(output: Path, alone: Path) -> None:
    """All losses, gradient norms, held-out numbers and weights."""
    for kind in ("train", "validation"):
        expected, found = curve(alone, kind), curve(output, kind)
        assert found.keys() == expected.keys()
        for step, numbers in expected.items():
            assert found[step] == pytest.approx(numbers, rel=2e-5 if step == 1 else 1e-3, abs=1e-5), f"{kind} step {step}"
    expected, found = (saved(folder, STEPS, "model") for folder in (alone, output))
    assert {name: tensor.shape for name, tensor in found.items()} == {name: tensor.shape for name, tensor in expected.items()}
    for name, tensor in expected.items():
        assert (found[name] - tensor).abs().max() < 1e-4, name


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "accumulation"), [("fsdp", 2), ("zero2", 1), ("zero3", 2)])
def test_a_strategy_on_two_ranks_is_the_run_of_one_process(alone: Path, tmp_path: Path, strategy: str, accumulation: int) -> None:
    sets = (*STRATEGIES[strategy], f"engine.accumulation={accumulation}")
    done = run("pretrain", alone.parent / "config.yaml", tmp_path / "run", "--nproc", "2", "--set", *sets)
    assert done.returncode == 0, done.stderr
    compare(tmp_path / "run", alone)


@pytest.mark.slow
def test_a_run_goes_on_under_another_strategy_and_number_of_ranks(alone: Path, tmp_path: Path) -> None:
    """One process, then FSDP2 on two from step 2 on, ZeRO-3 on two from 3, ZeRO-2 on two from 4, one process again from 5."""
    config, output = alone.parent / "config.yaml", tmp_path / "run"
    shutil.copytree(alone, output)
    for last, (strategy, nproc) in enumerate((("fsdp", "2"), ("zero3", "2"), ("zero2", "2"), ("ddp", "1")), start=2):
        forget_after(output, last)
        done = run("pretrain", config, output, "--nproc", nproc, "--set", *STRATEGIES[strategy])
        assert done.returncode == 0, done.stderr
        assert f"step {last}" in next(line for line in done.stderr.splitlines() if "continuing from" in line)
        compare(output, alone)


@pytest.mark.slow
@pytest.mark.parametrize("sets", [("engine.activation_checkpointing=true",), ("engine.activation_checkpointing=true", *STRATEGIES["fsdp"])])
def test_activation_checkpointing_changes_nothing(alone: Path, tmp_path: Path, sets: tuple[str, ...]) -> None:
    done = run("pretrain", alone.parent / "config.yaml", tmp_path / "run", "--set", *sets)
    assert done.returncode == 0, done.stderr
    compare(tmp_path / "run", alone)


@pytest.mark.slow
def test_fsdp_computes_keys_within_its_layers_where_no_context_is_shared(alone: Path, tmp_path: Path) -> None:
    sets = (*STRATEGIES["fsdp"], "model.savings.shared_context=false")
    done = run("pretrain", alone.parent / "config.yaml", tmp_path / "run", "--set", *sets)
    assert done.returncode == 0, done.stderr
    compare(tmp_path / "run", alone)


@pytest.mark.slow
def test_finetuning_under_zero_reports_the_weights_that_did_best(small_data: Path, tmp_path: Path) -> None:
    settings = task_settings("retrieval", small_data, 2)
    settings["engine"] |= {"evaluate_every": 1, "strategy": "deepspeed"}
    done = run("retrieval", write_config(tmp_path / "config.yaml", settings), tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "r_mean" in json.loads((tmp_path / "run/metrics.json").read_text())["metrics"]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fsdp", "zero2"])
def test_in_bf16_the_weights_that_are_trained_and_saved_stay_in_float32(alone: Path, tmp_path: Path, strategy: str) -> None:
    sets = (*STRATEGIES[strategy], "engine.precision=bf16")
    done = run("pretrain", alone.parent / "config.yaml", tmp_path / "run", "--nproc", "2", "--set", *sets)
    assert done.returncode == 0, done.stderr
    expected, found = curve(alone), curve(tmp_path / "run")
    for step, numbers in expected.items():
        assert found[step]["loss"] == pytest.approx(numbers["loss"], rel=0.02), f"step {step}"
    weights = saved(tmp_path / "run", STEPS, "model")
    floats = [tensor for tensor in weights.values() if tensor.is_floating_point()]
    assert all(tensor.dtype == torch.float32 for tensor in floats)
    assert any(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in floats)  # not rounded on the way
    assert set(curve(tmp_path / "run", "validation")) == {STEPS}
