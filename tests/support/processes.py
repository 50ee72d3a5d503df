"""Processes of a run under test: found by a mark in their environment, because ranks have process groups of their own."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from forked import MARK, sessions
from warm_start import WarmProcess

PATIENCE = 180
"""Seconds in which even a busy machine does what a test waits for."""


@contextmanager
def started(command: list[str], log: Path, **environment: str) -> Iterator[WarmProcess]:
    """A run with its log in a file; none of its processes is left afterwards."""
    process = WarmProcess(command, log, log, os.environ | environment | {MARK: str(log)})
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
    """The processes of the run with this log whose session began with these environment variables."""
    told = {int(file.name): json.loads(file.read_text()) for file in sessions(log).glob("*") if file.name.isdigit()}
    wanted = {MARK: str(log)} | variables
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if wanted.items() <= told.get(_session(pid), {}).items()]


def _session(pid: int) -> int:
    """Of a process that has not ended; else -1."""
    try:
        state, _, _, session, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # gone
        return -1
    return int(session) if state != "Z" else -1


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE, log: Path | None = None) -> None:
    """Poll until something is so; a log is shown where it never is."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time" if log is None else log.read_text()
        time.sleep(0.02)


def logged(output: Path, step: int) -> Callable[[], bool]:
    """True when a run has logged a step."""
    file = output / "metrics.jsonl"
    return lambda: file.is_file() and f'"step": {step},' in file.read_text()
