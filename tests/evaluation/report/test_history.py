"""Reading the course of a run, also of one that was killed."""

import json
from pathlib import Path

import numpy as np

from evaluation.report.history import read_history


def write(path: Path, lines: list[dict], tail: str = "") -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)
    return path


def train(step: int, loss: float, time: float = 0.0) -> dict:
    return {"step": step, "kind": "train", "loss": loss, "time": time}


def test_a_missing_file_is_an_empty_history(tmp_path: Path) -> None:
    assert read_history(tmp_path / "metrics.jsonl").curves == {}


def test_a_cut_last_line_is_left_out(tmp_path: Path) -> None:
    history = read_history(write(tmp_path / "m", [train(1, 3.0), train(2, 2.0)], tail='{"step": 3, "kind": "tra'))
    np.testing.assert_array_equal(history.of("train")["loss"].steps, [1, 2])


def test_a_line_glued_to_a_cut_one_does_not_stop_the_reader(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m", [train(1, 3.0)], tail='{"step": 2, "ki' + json.dumps(train(2, 2.0)) + "\n" + json.dumps(train(3, 1.0)) + "\n[]\n"
    )
    np.testing.assert_array_equal(read_history(path).of("train")["loss"].steps, [1, 3])


def test_lines_of_a_resumed_run_replace_those_of_the_killed_one(tmp_path: Path) -> None:
    killed, resumed = [train(step, 1.0) for step in (10, 20, 30, 35, 40)], [train(step, 2.0) for step in (30, 40, 50)]
    loss = read_history(write(tmp_path / "m", killed + resumed)).of("train")["loss"]
    np.testing.assert_array_equal(loss.steps, [10, 20, 30, 40, 50])
    np.testing.assert_array_equal(loss.values, [1, 1, 2, 2, 2])


def test_kinds_do_not_mix(tmp_path: Path) -> None:
    history = read_history(write(tmp_path / "m", [train(10, 1.0), {"step": 10, "kind": "validation", "loss": 5.0}, train(20, 2.0)]))
    np.testing.assert_array_equal(history.of("validation")["loss"].values, [5.0])
    np.testing.assert_array_equal(history.of("train")["loss"].values, [1.0, 2.0])
    assert history.of("test") == {}


def test_time_at_work_leaves_out_the_pause_before_a_resume(tmp_path: Path) -> None:
    start = 1.7e9
    lines = [train(step, 1.0, start + step) for step in (10, 20, 30)]
    gone_back = [train(step, 1.0, start + 90_000 + step) for step in (30, 40)]
    assert read_history(write(tmp_path / "a", [*lines, train(20, 1.0, start + 90_000), *gone_back])).seconds == 60.0
    assert read_history(write(tmp_path / "b", [*lines, train(40, 1.0, start + 90_000)])).seconds == 20.0
