"""Exit codes, and what stands on standard error, for one and for several processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.cli import main
from tests.support.launching import fake_task

PROCESSES = [[], ["--nproc", "2"]]


@pytest.mark.parametrize("nproc", PROCESSES)
def test_task_runs_with_the_overridden_config_in_every_process(tmp_path: Path, nproc: list[str]) -> None:
    tasks, command = fake_task(tmp_path)
    assert main([*command, "--set", "seed=7", *nproc], tasks) == 0
    count = int(nproc[1]) if nproc else 1
    assert [(tmp_path / "out" / f"rank-{rank}").read_text() for rank in range(count)] == [f"7 {count}"] * count


@pytest.mark.parametrize("nproc", PROCESSES)
def test_exit_code_of_the_task_is_the_launchers(tmp_path: Path, nproc: list[str]) -> None:
    tasks, command = fake_task(tmp_path, "sys.exit(7)")
    if nproc:
        before = dict(os.environ)
        assert main([*command, *nproc], tasks) == 7
        assert {name for name in os.environ.keys() - before.keys() if name.startswith("MULTIGRAIN")} == set()
    else:
        with pytest.raises(SystemExit) as left:
            main(command, tasks)
        assert left.value.code == 7


@pytest.mark.parametrize("nproc", PROCESSES)
def test_bad_input_found_by_the_task_is_one_line_and_exit_2(tmp_path: Path, capfd: pytest.CaptureFixture[str], nproc: list[str]) -> None:
    tasks, command = fake_task(tmp_path, "raise UserError('data/x.tar: is truncated. Copy it again.')")
    assert main([*command, *nproc], tasks) == 2
    assert capfd.readouterr().err == "data/x.tar: is truncated. Copy it again.\n"


def test_bad_input_that_one_process_finds_is_told_and_ends_the_others(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tasks, command = fake_task(tmp_path, "if rank == '0': signal.pause()\n    raise UserError('rank 1 has no data.')")
    assert main([*command, "--nproc", "2"], tasks) == 2
    assert capfd.readouterr().err == "rank 1 has no data.\n"


def test_killed_process_gives_128_and_the_signal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tasks, command = fake_task(tmp_path, "os.kill(os.getpid(), signal.SIGKILL) if rank == '1' else signal.pause()")
    assert main([*command, "--nproc", "2"], tasks) == 128 + signal.SIGKILL
    assert "Process 1 was killed by signal 9 (SIGKILL)." in capfd.readouterr().err


def test_interrupt_exits_130(tmp_path: Path) -> None:
    tasks, command = fake_task(tmp_path, "raise KeyboardInterrupt")
    assert main(command, tasks) == 130


def test_entry_script_runs_by_itself(tmp_path: Path) -> None:
    tasks, command = fake_task(tmp_path, "sys.exit(3) if config.seed == 9 else None")
    by_itself = [sys.executable, str(tasks["pretrain"].script), *command[2:], "--set", "seed=9"]
    assert subprocess.run(by_itself, check=False).returncode == 3
    wrong = subprocess.run([*by_itself[:-1], "sed=9"], check=False, capture_output=True, text=True)
    assert (wrong.returncode, wrong.stderr) == (2, "--set: sed is not a setting. Did you mean seed?\n")


def test_run_py_ends_with_the_exit_code_of_bad_input() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, str(root / "run.py"), "--task", "pretran"], check=False, capture_output=True, text=True, cwd=root
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_run_folder_tells_settings_code_and_machine(tmp_path: Path) -> None:
    tasks, command = fake_task(tmp_path)
    assert main([*command, "--set", "optimizer.lr=3e-4"], tasks) == 0
    assert main([*command, "--set", "optimizer.lr=3e-4"], tasks) == 0
    assert "lr: 0.0003" in (tmp_path / "out" / "config.yaml").read_text()
    environment = json.loads((tmp_path / "out" / "environment.json").read_text())
    assert environment["packages"]["torch"]
    assert environment["processes"] == 1
    assert len(environment["earlier_starts"]) == 1
    assert not list((tmp_path / "out").glob(".*"))  # nothing half written


def test_folder_of_a_start_that_came_to_nothing_is_free(tmp_path: Path) -> None:
    tasks, command = fake_task(tmp_path)
    assert main(command, tasks) == 0
    assert main([*command, "--set", "optimizer.lr=2e-4"], tasks) == 0
    assert "lr: 0.0002" in (tmp_path / "out" / "config.yaml").read_text()


def test_folder_of_another_run_is_refused_with_the_first_difference(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tasks, command = fake_task(tmp_path)
    assert main(command, tasks) == 0
    (tmp_path / "out" / "checkpoints").mkdir()
    before = (tmp_path / "out" / "config.yaml").read_text()
    for nproc in PROCESSES:
        assert main([*command, "--set", "optimizer.lr=2e-4", *nproc], tasks) == 2
        said = capfd.readouterr().err
        assert "first optimizer.lr: 0.0001 there, 0.0002 here" in said
        assert said.count("\n") == 1
    assert (tmp_path / "out" / "config.yaml").read_text() == before


def test_folder_is_continued_with_other_logging_and_loading(tmp_path: Path) -> None:
    tasks, command = fake_task(tmp_path)
    assert main(command, tasks) == 0
    changed = ["engine.workers=0", "engine.log_every=3", "loggers.wandb.project=x", "report.samples=2"]
    assert main([*command, "--set", *changed], tasks) == 0
    assert "workers: 0" in (tmp_path / "out" / "config.yaml").read_text()
