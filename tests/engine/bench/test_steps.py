"""The whole measurement, of a model that takes milliseconds."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench_request import bench_request
from common.errors import UserError
from engine.bench import peak, steps
from engine.bench.batches import make_supply
from engine.bench.report import Comparison
from engine.bench.subject import Stages, Subject
from engine.config.loader import load_config


@pytest.fixture(autouse=True)
def _small_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peak.SIZES, "cpu", 64)


def test_numbers_have_the_documented_keys_and_agree_with_one_another(tmp_path: Path) -> None:
    report = steps.run(bench_request(tmp_path, by_stage=True, steps=3, fixed_length=12))
    numbers = report.numbers
    undocumented = {key for key in (*numbers, *numbers["streams"]["regions"]) if not re.search(rf"\b{key}\b", steps.__doc__ or "")}
    assert not undocumented
    assert numbers["rows_per_step"] == 20
    assert numbers["samples_per_second"] * numbers["seconds_per_step"] == pytest.approx(20)
    assert sum(numbers["flops_by_stage"].values()) == pytest.approx(numbers["flops_per_step"])
    assert numbers["mfu"] == pytest.approx(numbers["flops_per_step"] / numbers["seconds_per_step"] / numbers["peak_tflops"] / 1e12)
    assert len(numbers["step_seconds"]) == 3 and numbers["skipped_steps"] == 0
    assert numbers["saved_for_backward_bytes"] > 0 and numbers["peak_memory_bytes"] > 2**20
    text = report.text()
    assert "samples/s per peak TFLOP/s" in text and "fusion: itm negatives" in text


def test_stages_sum_to_the_step_and_leave_the_subject_as_it_was(tmp_path: Path) -> None:
    numbers = steps.measure(bench_request(tmp_path, "engine.accumulation=2", by_stage=True, steps=3, fixed_length=12))
    stages: dict[str, float] = numbers["stages"]
    assert sum(stages.values()) == pytest.approx(numbers["seconds_mean"], rel=0.05)
    fusion = ("itm positive", "itm negatives", "mlm", "box")
    wanted = ["load", "host to device", "vision", "context", "text", *(f"fusion: {name}" for name in fusion)]
    assert list(stages) == [*wanted, "heads and losses", "backward", "clip and optimizer", "other"]
    assert stages["backward"] > stages["other"]


def test_clock_is_taken_out_again(tmp_path: Path) -> None:
    request = bench_request(tmp_path)
    subject = Subject(request.config, make_supply(request, 3))
    before = {id(owner): dict(vars(owner)) for owner in (subject.task, subject.task.model, subject.strategy)}
    stages = Stages(subject)
    with stages.watching():
        stages.step()
        assert "fuse" in vars(subject.task.model)
    assert before == {id(owner): dict(vars(owner)) for owner in (subject.task, subject.task.model, subject.strategy)}
    subject.step()
    assert set(stages.seconds()) >= {"vision", "backward"}


@pytest.mark.parametrize("task", ["retrieval", "grounding"])
def test_fine_tuning_is_measured_too(tmp_path: Path, task: str) -> None:
    numbers = steps.measure(bench_request(tmp_path, task=task, fixed_length=12))
    assert numbers["streams"]["train"]["rows"] == 8
    assert numbers["flops_per_step"] > 0


def test_comparison_gives_both_settings_numbers_and_their_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def alone(*_: Any) -> list[dict[str, int]]:
        return [{"peak_memory_bytes": 3, "saved_for_backward_bytes": 2}] * 2

    monkeypatch.setattr(steps, "memory_alone", alone)
    request = bench_request(tmp_path, fixed_length=12)
    values = ("fp32", "bf16")
    configs = tuple(load_config(request.path, [f"engine.precision={value}"]).config for value in values)
    report = steps.run(replace(request, comparisons=[Comparison("engine.precision", values, configs)]))
    (comparison,) = report.numbers["comparisons"]
    first, second = comparison["values"]
    assert (comparison["key"], first["value"], second["value"]) == ("engine.precision", *values)
    assert first["ratio_range"] == [1.0, 1.0] and first["peak_memory_bytes"] == 3
    low, high = second["ratio_range"]
    assert low <= second["ratio"] <= high and len(second["ratios"]) == 2
    assert "Compared: engine.precision" in report.text()


@pytest.mark.parametrize("option", ["steps", "warmup"])
def test_numbers_of_steps_are_checked(tmp_path: Path, option: str) -> None:
    with pytest.raises(UserError, match=f"--{option} 0: must be at least 1"):
        steps.run(replace(bench_request(tmp_path), **{option: 0}))
