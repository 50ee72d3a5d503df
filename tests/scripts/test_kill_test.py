"""The script that kills a training: it passes where promises are kept, and notices each that is not."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.kill_test import Broken, Run, Undisturbed, _check
from small_run import ROOT

WHOLE = Undisturbed({step: {"step": step, "kind": "train", "loss": 1.0 / step} for step in range(1, 10)}, {}, 1.0, 1.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run that was killed after step 7; its last checkpoint is of step 6."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/latest").write_text("step-00000006")
    (tmp_path / "log.txt").write_text("10:00:00 INFO continuing from x/checkpoints/step-00000003, step 3\n")
    lines = [json.dumps(WHOLE.losses[step] | {"time": 5.0}) for step in range(1, 8)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 8, "lo']))
    return tmp_path


def test_a_run_that_kept_its_promises_passes(folder: Path) -> None:
    _check(Run(folder), 3, WHOLE)


def fall_back(folder: Path) -> None:
    (folder / "log.txt").write_text("10:00:00 INFO continuing from x/checkpoints/step-00000000, step 0\n")


def lose_a_checkpoint(folder: Path) -> None:
    (folder / "checkpoints/latest").write_text("step-00000000")


def change_a_loss(folder: Path) -> None:
    file = folder / "metrics.jsonl"
    file.write_text(file.read_text().replace('"loss": 0.2,', '"loss": 0.20000000000000004,'))


def repeat_a_step(folder: Path) -> None:
    file = folder / "metrics.jsonl"
    file.write_text(file.read_text().splitlines()[0] + "\n" + file.read_text())


@pytest.mark.parametrize("fault", [fall_back, lose_a_checkpoint, change_a_loss, repeat_a_step])
def test_a_broken_promise_is_noticed(folder: Path, fault: Callable[[Path], None]) -> None:
    fault(folder)
    with pytest.raises(Broken):
        _check(Run(folder), 3, WHOLE)


@pytest.mark.slow
def test_a_few_kills_lose_nothing() -> None:
    script = [sys.executable, str(ROOT / "scripts/kill_test.py"), "--kills", "2"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kills" in done.stdout.splitlines()[-1]
