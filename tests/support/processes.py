"""Processes of a run under test: found by a mark in their environment, because ranks have process groups of their own."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from small_run import ROOT

MARK = "MULTIGRAIN_TESTED_RUN"


@contextmanager
def started(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run with its log in a file; none of its processes is left afterwards."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, env=os.environ | {MARK: str(log)})
        try:
            yield process
        finally:
            for pid in processes(log):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            process.wait()


def processes(log: Path, **variables: str) -> list[int]:
    """The processes of the run with this log that have these environment variables."""
    wanted = {MARK: str(log)} | variables
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if wanted.items() <= _environment(pid).items()]


def _environment(pid: int) -> dict[str, str]:
    try:
        return dict(part.split("=", 1) for part in Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in part)
    except (OSError, UnicodeDecodeError):  # gone, or another user's
        return {}


def wait_until(condition: Callable[[], bool], seconds: float = 60, log: Path | None = None) -> None:
    """Poll until something is so; a log is shown where it never is."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time" if log is None else log.read_text()
        time.sleep(0.02)


def logged(output: Path, step: int) -> Callable[[], bool]:
    """True when a run has logged a step."""
    file = output / "metrics.jsonl"
    return lambda: file.is_file() and f'"step": {step},' in file.read_text()
