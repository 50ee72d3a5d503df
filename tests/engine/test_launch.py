"""Exit codes, and what stands on standard error, for one and for several processes."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

from engine.cli import main
from engine.launch.stopping import TOGETHER
from forked import Forked
from processes import PATIENCE, wait_until
from tests.support.launching import fake_task, launch, start_launcher

PROCESSES = [[], ["--nproc", "2"]]


@pytest.mark.parametrize("nproc", PROCESSES)
def test_task_runs_with_the_overridden_config_in_every_process(tmp_path: Path, nproc: list[str]) -> None:
    tasks, command = fake_task(tmp_path)
    assert launch(tasks, [*command, "--set", "seed=7", *nproc])[0] == 0
    count = int(nproc[1]) if nproc else 1
    assert [(tmp_path / "out" / f"rank-{rank}").read_text() for rank in range(count)] == [f"7 {count}"] * count


def test_exit_code_of_the_task_is_the_launchers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess_handler, "Popen", Forked)
    tasks, command = fake_task(tmp_path, "sys.exit(7)")
    with pytest.raises(SystemExit) as left:
        main(command, tasks)
    assert left.value.code == 7
    before = dict(os.environ)
    assert main([*command, "--nproc", "2"], tasks) == 7
    assert {name for name in os.environ.keys() - before.keys() if name.startswith("MULTIGRAIN")} == set()


@pytest.mark.parametrize("nproc", PROCESSES)
def test_bad_input_found_by_the_task_is_one_line_and_exit_2(tmp_path: Path, nproc: list[str]) -> None:
    tasks, command = fake_task(tmp_path, "raise UserError('data/x.tar: is truncated. Copy it again.')")
    assert launch(tasks, [*command, *nproc]) == (2, "", "data/x.tar: is truncated. Copy it again.\n")


def test_bad_input_that_one_process_finds_is_told_and_ends_the_others(tmp_path: Path) -> None:
    tasks, command = fake_task(tmp_path, "if rank == '0': signal.pause()\n    raise UserError('rank 1 has no data.')")
    assert launch(tasks, [*command, "--nproc", "2"]) == (2, "", "rank 1 has no data.\n")


def test_killed_process_gives_128_and_the_signal(tmp_path: Path) -> None:
    tasks, command = fake_task(tmp_path, "os.kill(os.getpid(), signal.SIGKILL) if rank == '1' else signal.pause()")
    code, _, said = launch(tasks, [*command, "--nproc", "2"])
    assert code == 128 + signal.SIGKILL
    assert "failed first: killed by signal 9 (SIGKILL), as the kernel does when memory runs out (exit code 137; full log: " in said
    assert said.startswith("rank 1 on ")
    assert said.count("\n") == 1


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


ANSWERS = """asked = []
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, _: asked.append(number))
    (Path(output_dir) / f"ready-{rank}").write_text(str(os.getpid()))
    while not asked:
        time.sleep(0.01)
    (Path(output_dir) / f"heard-{rank}").write_text(asked[0].__str__())
    raise Requeue("Stopped at step 5.")"""

DEAF = ANSWERS.replace("while not asked", "while True")


def ready(tmp_path: Path) -> bool:
    return all((tmp_path / "out" / f"ready-{rank}").is_file() and (tmp_path / "out" / f"ready-{rank}").read_text() for rank in (0, 1))


def alive(tmp_path: Path) -> list[str]:
    pids = [(tmp_path / "out" / f"ready-{rank}").read_text() for rank in (0, 1)]
    states = [Path("/proc", pid, "stat") for pid in pids]
    return [state.parent.name for state in states if state.is_file() and state.read_text().rpartition(")")[2].split()[0] != "Z"]


def attempts(tmp_path: Path) -> list[str]:
    return sorted(folder.name for folder in (tmp_path / "out/logs").glob("*/*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_launcher_asked_to_stop_lets_every_process_save_and_asks_for_requeue(tmp_path: Path, number: signal.Signals) -> None:
    tasks, command = fake_task(tmp_path, ANSWERS)
    launcher = start_launcher(tasks, [*command, "--nproc", "2", "--max-restarts", "2"])
    wait_until(lambda: ready(tmp_path))
    launcher.send_signal(number)
    _, said = launcher.communicate(timeout=PATIENCE)
    assert launcher.returncode == 75, said
    assert [(tmp_path / "out" / f"heard-{rank}").read_text() for rank in (0, 1)] == [str(int(number))] * 2
    assert said.splitlines()[1:] == ["Stopped at step 5."]
    assert attempts(tmp_path) == ["attempt-1"]


def test_stop_that_one_process_decides_asks_for_requeue_too(tmp_path: Path) -> None:
    tasks, command = fake_task(tmp_path, "raise Requeue('Stopped at step 5.')")
    assert launch(tasks, [*command, "--nproc", "2", "--max-restarts", "2"]) == (75, "", "Stopped at step 5.\n")
    assert launch(tasks, command) == (75, "", "Stopped at step 5.\n")


def test_second_sigterm_ends_processes_that_do_not_answer(tmp_path: Path) -> None:
    tasks, command = fake_task(tmp_path, DEAF)
    launcher = start_launcher(tasks, [*command, "--nproc", "2", "--max-restarts", "2"])
    wait_until(lambda: ready(tmp_path))
    launcher.send_signal(signal.SIGTERM)
    wait_until(lambda: "SIGTERM once more" in launcher.err.read_text())
    assert len(alive(tmp_path)) == 2
    launcher.send_signal(signal.SIGTERM)  # together with the first: SLURM sends two
    time.sleep(TOGETHER + 0.5)
    assert len(alive(tmp_path)) == 2
    launcher.send_signal(signal.SIGTERM)
    launcher.communicate(timeout=PATIENCE)
    assert launcher.returncode == 128 + signal.SIGTERM
    assert alive(tmp_path) == []


def test_processes_that_do_not_answer_in_time_are_ended(tmp_path: Path) -> None:
    tasks, command = fake_task(tmp_path, DEAF)
    launcher = start_launcher(tasks, [*command, "--nproc", "2", "--grace", "0.3"])
    wait_until(lambda: ready(tmp_path))
    launcher.send_signal(signal.SIGUSR1)
    _, said = launcher.communicate(timeout=PATIENCE)
    assert launcher.returncode == 128 + signal.SIGTERM
    assert "0.3 s are over" in said
    assert alive(tmp_path) == []


def test_processes_of_a_killed_launcher_end(tmp_path: Path) -> None:
    tasks, command = fake_task(tmp_path, DEAF)
    launcher = start_launcher(tasks, [*command, "--nproc", "2"])
    wait_until(lambda: ready(tmp_path))
    launcher.kill()
    launcher.communicate(timeout=PATIENCE)
    wait_until(lambda: alive(tmp_path) == [])


FAILS = """print(f"output of rank {rank}", flush=True)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    logging.info("rank %s begins", rank)
    logging.warning("rank %s is low on space", rank)
    if rank == "0":
        (Path(output_dir) / "waiting").touch()
        signal.pause()
    while not (Path(output_dir) / "waiting").is_file():
        time.sleep(0.01)
    raise ValueError("no such colour")"""


def test_first_failing_rank_is_named_and_every_rank_has_its_files(tmp_path: Path) -> None:
    tasks, command = fake_task(tmp_path, FAILS)
    code, out, err = launch(tasks, [*command, "--nproc", "2"])
    assert code == 1
    [start] = (tmp_path / "out/logs").iterdir()
    files = start / "attempt-1"
    assert out == "output of rank 0\n"
    assert "INFO rank 0 begins" in err
    assert "[rank 1] WARNING rank 1 is low on space" in err
    assert "rank 1 begins" not in err
    assert err.count("Traceback") == 1
    said = err.splitlines()[-1]
    assert said.startswith("rank 1 on ")
    assert said.endswith(f" failed first: ValueError: no such colour (exit code 1; full log: {files / 'rank-1.err'})")
    assert (files / "rank-1.out").read_text() == "output of rank 1\n"
    assert "INFO rank 1 begins" in (files / "rank-1.err").read_text()
    left = json.loads((files / "rank-1.json").read_text())
    assert (left["message"], left["rank"]) == ("ValueError: no such colour", 1)
    assert 'raise ValueError("no such colour")' in left["traceback"]
    assert not (files / "rank-0.json").exists()  # ended because of rank 1


def test_rank_0_keeps_the_terminal(tmp_path: Path) -> None:
    """For its progress bar."""
    tasks, command = fake_task(tmp_path, "(Path(output_dir) / f'tty-{rank}').write_text(str(sys.stderr.isatty()))")
    ours, its = pty.openpty()
    launcher = start_launcher(tasks, [*command, "--nproc", "2"], err=Path(os.ttyname(its)))
    assert launcher.wait(PATIENCE) == 0
    os.close(its)
    os.close(ours)
    assert [(tmp_path / f"out/tty-{rank}").read_text() for rank in (0, 1)] == ["True", "False"]


def test_failed_attempt_is_one_line_and_the_next_one_starts(tmp_path: Path) -> None:
    body = "if os.environ['TORCHELASTIC_RESTART_COUNT'] == '0' and rank == '1': os._exit(9)"
    tasks, command = fake_task(tmp_path, body)
    code, _, said = launch(tasks, [*command, "--nproc", "2", "--max-restarts", "2"])
    assert code == 0
    assert said.count("\n") == 1
    assert "rank 1 on " in said
    assert said.endswith("Attempt 1 of 3: starting again from the latest checkpoint.\n")
    assert attempts(tmp_path) == ["attempt-1", "attempt-2"]


def test_bad_input_is_not_tried_again(tmp_path: Path) -> None:
    tasks, command = fake_task(tmp_path, "raise UserError('data/x.tar: is truncated.')")
    assert launch(tasks, [*command, "--max-restarts", "3"]) == (2, "", "data/x.tar: is truncated.\n")
    assert attempts(tmp_path) == ["attempt-1"]


def test_logs_of_old_starts_are_removed(tmp_path: Path) -> None:
    tasks, command = fake_task(tmp_path)
    for day in range(10, 22):
        (tmp_path / f"out/logs/202001{day}-000000/attempt-1").mkdir(parents=True)
    assert launch(tasks, [*command, "--nproc", "2"])[0] == 0
    kept = sorted(folder.name for folder in (tmp_path / "out/logs").iterdir())
    assert len(kept) == 10
    assert kept[0] == "20200113-000000"


@pytest.fixture
def place() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def answers(place: str) -> bool:
    host, _, port = place.partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def test_nodes_that_never_come_are_counted(tmp_path: Path, capfd: pytest.CaptureFixture[str], place: str) -> None:
    tasks, command = fake_task(tmp_path)
    assert main([*command, "--nnodes", "2", "--rdzv", place, "--rdzv-timeout", "1"], tasks) == 1
    assert capfd.readouterr().err == f"1 of 2 nodes came to {place} within 1 s.\n"


def test_launcher_that_waits_for_nodes_stops_when_asked_to(tmp_path: Path, place: str) -> None:
    tasks, command = fake_task(tmp_path)
    launcher = start_launcher(tasks, [*command, "--nnodes", "2", "--rdzv", place])
    wait_until(lambda: answers(place))
    launcher.send_signal(signal.SIGUSR1)
    _, said = launcher.communicate(timeout=PATIENCE)
    assert (launcher.returncode, said) == (75, "")


@pytest.mark.slow
def test_every_node_names_the_rank_that_failed_first(tmp_path: Path, place: str) -> None:
    tasks, command = fake_task(tmp_path, FAILS)
    nodes = [start_launcher(tasks, [*command, "--nnodes", "2", "--nproc", "1", "--rdzv", place], name) for name in ("a", "b")]
    said = [node.communicate(timeout=PATIENCE)[1].splitlines()[-1] for node in nodes]
    assert [node.returncode for node in nodes] == [1, 1], said
    assert said[0] == said[1]
    assert " failed first: ValueError: no such colour" in said[0]
    assert len(list((tmp_path / "out/logs").glob("*/attempt-1/rank-*.err"))) == 2


def test_node_with_another_command_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str], place: str) -> None:
    tasks, command = fake_task(tmp_path)
    node = [*command, "--nnodes", "2", "--nproc", "1", "--rdzv", place]
    launcher = start_launcher(tasks, node)
    wait_until(lambda: answers(place))
    assert main([*node, "--set", "seed=2"], tasks) == 2
    said = capfd.readouterr().err
    assert "--set seed=2`, the first one `pretrain" in said
    assert said.count("\n") == 1
    launcher.terminate()
    launcher.communicate(timeout=PATIENCE)
    assert not list((tmp_path / "out").glob("rank-*"))
