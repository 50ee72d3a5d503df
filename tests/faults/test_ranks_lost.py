"""A process that is killed in the middle of training, on one machine."""

import os
import signal
from pathlib import Path

import pytest
import torch

from processes import processes, started, wait_until
from small_run import command, curve, pretrain_settings, run, saved, write_config

STEPS = 8


@pytest.fixture(scope="module")
def config(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = pretrain_settings(small_data, STEPS)
    settings["engine"] |= {"checkpoint_every": 2}
    return write_config(tmp_path_factory.mktemp("lost") / "config.yaml", settings)


@pytest.fixture(scope="module")
def undisturbed(config: Path) -> Path:
    """The run that nobody disturbed, in two processes."""
    done = run("pretrain", config, config.parent / "whole", "--nproc", "2")
    assert done.returncode == 0, done.stderr
    return config.parent / "whole"


def run_and_kill(config: Path, output: Path, rank: int, *more: str) -> tuple[int, str]:
    """Kill a rank when the first checkpoint is there; returns the launcher's exit code and what was said."""
    log = output.with_suffix(".log")
    with started(command("pretrain", config, output, "--nproc", "2", *more), log) as launcher:
        wait_until(lambda: (output / "checkpoints/latest").is_file() or launcher.poll() is not None, log=log)
        (pid,) = processes(log, RANK=str(rank))
        os.kill(pid, signal.SIGKILL)
        return launcher.wait(), log.read_text()


@pytest.mark.slow
def test_killed_rank_ends_the_run_and_is_named(config: Path, tmp_path: Path) -> None:
    code, said = run_and_kill(config, tmp_path / "run", 0)
    assert code == 128 + signal.SIGKILL, said
    last = said.splitlines()[-1]
    assert last.startswith("rank 0 on ")
    assert " failed first: killed by signal 9 (SIGKILL)" in last


@pytest.mark.slow
def test_killed_rank_is_restarted_and_the_run_ends_with_the_weights_of_an_undisturbed_one(
    config: Path, undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    code, said = run_and_kill(config, output, 1, "--max-restarts", "1")
    assert code == 0, said
    assert "Attempt 1 of 2: starting again from the latest checkpoint." in said
    assert curve(output) == curve(undisturbed)
    resumed, whole = (saved(folder, STEPS, "model") for folder in (output, undisturbed))
    assert set(resumed) == set(whole)
    for name in whole:
        assert torch.equal(resumed[name], whole[name]), name
