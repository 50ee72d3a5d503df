"""A run that hangs says which rank is at fault and where, and ends instead of waiting for ever."""

import os
import pickle
import re
import shutil
import signal
from pathlib import Path

import pytest

from engine.watchdog_traces import EXIT_STALLED
from processes import logged, processes, started, wait_until
from small_run import command, pretrain_settings, task_settings, write_config

FOREVER = 100_000
"""Steps; these runs do not come to their end by themselves."""
LIMITS = ("--set", "engine.stall_warning=2", "engine.timeout=8")


@pytest.mark.slow
def test_a_stopped_rank_is_named_with_its_last_step_and_the_run_ends(small_data: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "config.yaml", pretrain_settings(small_data, FOREVER))
    output, log = tmp_path / "run", tmp_path / "log"
    with started(command("pretrain", config, output, "--nproc", "2", *LIMITS), log) as run:
        wait_until(logged(output, 3), log=log)
        (pid,) = processes(log, RANK="1")
        os.kill(pid, signal.SIGSTOP)
        # 8 s, and half a minute in which the launcher waits for the stopped process to heed SIGTERM
        wait_until(lambda: run.poll() is not None, log=log)
        assert run.returncode in (EXIT_STALLED, 128 + signal.SIGKILL)  # of the rank that gave up, or of the one that had to be killed
        wait_until(lambda: not processes(log), log=log)
    text = log.read_text()
    assert "WARNING no progress: rank 0 on" in text
    named = re.search(rf"rank 1 on \S+ \(pid {pid}\) has given no sign of life for \d+ s: last finished step (\d+)", text)
    assert named, text
    steps = [line for line in (output / "metrics.jsonl").read_text().splitlines() if '"kind": "train"' in line]
    assert len(steps) - 20 <= int(named[1]) <= len(steps) + 1  # a few steps fit between two heartbeats
    words = (output / "logs/stalled-rank-00000.txt").read_text()
    assert f"ending with exit code {EXIT_STALLED}: rank 1 on" in words
    assert "torch/distributed/" in (output / "logs/stacks-rank-00000.txt").read_text()
    collectives = pickle.loads((output / "logs/flight-recorder/gloo-rank-0").read_bytes())
    assert collectives["entries"][-1]["profiling_name"].startswith("gloo:")


def block(file: Path) -> None:
    """Put a pipe in a file's place: to open it takes for ever, as on a file server that is gone."""
    pipe = file.with_suffix(".pipe")
    os.mkfifo(pipe)
    pipe.replace(file)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_that_gets_no_answer_is_called_a_stalled_loader(small_data: Path, tmp_path: Path, workers: int) -> None:
    data = shutil.copytree(small_data, tmp_path / "data")
    settings = task_settings("retrieval", data, FOREVER)
    settings["engine"] |= {"workers": workers, "checkpoint_every": FOREVER}
    config = write_config(tmp_path / "config.yaml", settings)
    output, log = tmp_path / "run", tmp_path / "log"
    with started(command("retrieval", config, output, "--nproc", "2", *LIMITS), log) as run:
        wait_until(logged(output, 3), log=log)
        block(next((data / "images/train").iterdir()))
        wait_until(lambda: run.poll() is not None, log=log)
        assert run.returncode == EXIT_STALLED
        wait_until(lambda: not processes(log), log=log)  # loader workers end with their rank
    text = log.read_text()
    named = re.search(r"rank (\d) on \S+ \(pid \d+\) is the one that holds the others up: last finished step \d+, (.*); 1 rank waits", text)
    assert named, text
    assert "a stalled loader" in named[2]
    stacks = (output / f"logs/stacks-rank-0000{named[1]}.txt").read_text()
    assert "a stalled loader" in stacks
    assert "read_bytes" in stacks or workers  # of a worker only the rank's own waiting is seen
