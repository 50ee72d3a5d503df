"""The batch file, read and run by a shell, with stand-ins for srun and scontrol."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from engine.cli import main
from tests.support.launching import fake_task

SRUN = """#!{python}
import json, pathlib, sys
pathlib.Path("srun.json").write_text(json.dumps(sys.argv[1:]))
sys.exit({code})
"""
SQUEUE = """#!/bin/sh
echo {state}
"""
SCONTROL = """#!/bin/sh
echo "$@" > scontrol.txt
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the batch file is written, with a name that a shell would take apart."""
    place = tmp_path / "it's a folder"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def write(folder: Path, *more: str) -> Path:
    tasks, command = fake_task(folder)
    file = folder / "job.sh"
    assert main(["sbatch", *command, "--nodes", "4", "--gpus", "8", "--out", str(file), *more], tasks) == 0
    return file


def execute(file: Path, code: int, state: str = "RUNNING") -> subprocess.CompletedProcess[str]:
    tools = file.parent / "bin"
    tools.mkdir()
    srun, squeue = SRUN.format(python=sys.executable, code=code), SQUEUE.format(state=state)
    for name, text in (("srun", srun), ("scontrol", SCONTROL), ("squeue", squeue)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "SLURM_JOB_ID": "77", "SLURM_CPUS_PER_TASK": "64"}
    return subprocess.run(["bash", str(file)], env=environment, cwd="/", capture_output=True, text=True, check=False)


def test_file_asks_for_what_was_asked(folder: Path) -> None:
    file = write(folder, "--time", "24:00:00", "--partition", "gpu", "--account", "vl-1")
    assert subprocess.run(["bash", "-n", str(file)], check=False).returncode == 0
    lines = file.read_text().splitlines()
    for expected in (
        "--nodes=4",
        "--ntasks-per-node=1",
        "--gpus-per-node=8",
        "--cpus-per-task=64",
        "--time=24:00:00",
        "--partition=gpu",
        "--account=vl-1",
        "--requeue",
        "--open-mode=append",
        "--signal=USR1@180",
    ):
        assert f"#SBATCH {expected}" in lines
    last = max(number for number, line in enumerate(lines) if line.startswith("#SBATCH"))
    assert all(line.startswith("#") for line in lines[:last])  # SLURM stops reading at the first command


def test_run_that_asks_for_it_is_put_back_in_the_queue(folder: Path) -> None:
    done = execute(write(folder, "--set", "streams.images.shards=/data/a b/*.tar", "seed=3"), 75)
    assert done.returncode == 75, done.stderr
    assert (folder / "scontrol.txt").read_text() == "requeue 77\n"
    words = json.loads((folder / "srun.json").read_text())
    assert words[:4] == ["--kill-on-bad-exit=0", "--wait=0", "--cpus-per-task=64", sys.executable]
    assert shlex.join(words[-8:]) == shlex.join(
        ["--output_dir", f"{folder}/out", "--set", "streams.images.shards=/data/a b/*.tar", "--set", "seed=3", "--nproc", "8"]
    )


def test_job_that_somebody_cancels_stays_cancelled(folder: Path) -> None:
    assert execute(write(folder), 75, "COMPLETING").returncode == 75
    assert not (folder / "scontrol.txt").exists()


@pytest.mark.parametrize("code", [0, 1, 2, 137])
def test_run_that_ends_otherwise_is_not(folder: Path, code: int) -> None:
    assert execute(write(folder), code).returncode == code
    assert not (folder / "scontrol.txt").exists()


def test_file_is_printed_unless_told_otherwise(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks, command = fake_task(folder)
    assert main(["sbatch", *command, "--nodes", "1", "--gpus", "0"], tasks) == 0
    text = capsys.readouterr().out
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "gpus-per-node" not in text
    assert f"cd {shlex.quote(str(folder))} || exit 1" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--nodes", "0", "--gpus", "8"], "--nodes 0: must be at least 1."),
        (["--nodes", "1", "--gpus", "8", "--time", "tomorrow"], "--time tomorrow: must be"),
        (["--nodes", "1", "--gpus", "8", "--partition", "a b"], "--partition a b: is not a name."),
    ],
)
def test_what_slurm_would_not_take_is_refused(folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    tasks, command = fake_task(folder)
    assert main(["sbatch", *command, *words], tasks) == 2
    assert said in capsys.readouterr().err
