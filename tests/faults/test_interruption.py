"""A run that is asked to stop saves everything, says so with its exit code, and goes on as if nothing had happened."""

import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from common.errors import Requeue
from processes import logged, processes, started, wait_until
from small_run import ROOT, command, curve, pretrain_settings, run, saved, write_config

STEPS = 24
SCRIPT = ROOT / "tests/support/faulty_run.py"


def settings_for(data: Path) -> dict[str, Any]:
    settings = pretrain_settings(data, STEPS)
    settings["engine"] |= {"checkpoint_every": 100}  # but for the last one, no checkpoint comes by itself
    return settings


@pytest.fixture(scope="module")
def undisturbed(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    """The config, and by number of processes the run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    config = write_config(folder / "config.yaml", settings_for(small_data))
    for nproc in ("1", "2"):
        done = run("pretrain", config, folder / nproc, "--nproc", nproc)
        assert done.returncode == 0, done.stderr
    return config, {nproc: folder / nproc for nproc in ("1", "2")}


@pytest.mark.slow
@pytest.mark.parametrize(("nproc", "rank", "number"), [("1", None, signal.SIGTERM), ("2", "1", signal.SIGUSR1)])
def test_a_signal_to_any_rank_saves_and_asks_for_requeue_and_the_run_goes_on_bit_for_bit(
    undisturbed: tuple[Path, dict[str, Path]], tmp_path: Path, nproc: str, rank: str | None, number: signal.Signals
) -> None:
    config, whole = undisturbed
    output, log = tmp_path / "run", tmp_path / "log"
    with started(command("pretrain", config, output, "--nproc", nproc), log) as process:
        wait_until(logged(output, 3), log=log)
        (pid,) = processes(log, RANK=rank) if rank is not None else [process.pid]
        os.kill(pid, number)
        wait_until(lambda: process.poll() is not None, log=log)
    text = log.read_text()
    assert process.returncode == Requeue.exit_code, text
    said = re.search(rf"Stopped by {number.name} after step (\d+) of {STEPS}; the checkpoint of step (\d+) is good", text)
    assert said, text
    assert said[1] == said[2]
    assert 3 <= int(said[1]) < STEPS
    assert "Traceback" not in text
    again = run("pretrain", config, output, "--nproc", nproc)
    assert again.returncode == 0, again.stderr
    assert curve(output) == curve(whole[nproc])
    resumed, expected = (saved(folder, STEPS, "model") for folder in (output, whole[nproc]))
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_a_signal_in_an_evaluation_ends_it_on_all_ranks_and_it_is_made_up_for(small_data: Path, tmp_path: Path) -> None:
    settings = settings_for(small_data)
    settings["engine"] |= {"evaluate_every": 4}
    settings["schedule"]["steps"] = 6
    file = {"file": str(small_data / "grounding_test.json"), "image_root": str(small_data / "images"), "batch_size": 1}
    settings["evaluation"] = {"grounding": file}
    config = write_config(tmp_path / "config.yaml", settings)
    output, log, begun = tmp_path / "run", tmp_path / "log", tmp_path / "begun"
    launcher = [sys.executable, str(SCRIPT), "launch", *command("pretrain", config, output, "--nproc", "2")[2:]]
    with started(launcher, log, SCENE=f"linger {begun}") as process:
        wait_until(begun.is_file, log=log)
        (pid,) = processes(log, RANK="1")
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: process.poll() is not None, log=log)
    assert process.returncode == Requeue.exit_code, log.read_text()
    assert "Stopped by SIGTERM after step 4 of 6; the checkpoint of step 4 is good" in log.read_text()
    assert curve(output, "validation") == {}
    again = run("pretrain", config, output)  # on one process, so the wait is shorter too
    assert again.returncode == 0, again.stderr
    assert set(curve(output, "validation")) == {4, 6}
