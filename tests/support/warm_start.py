"""run.py, or another script, in processes that begin with the slow libraries imported: forked from one that has done nothing else.

A run of a few steps spends most of its time on imports. `WarmProcess` and `run_warm` start a server at their first call, for the rest of
the tests of this process; what it forks is a process of its own in all other ways, with its own exit. So are the ranks that its launcher
starts, which are forked from the launcher. `python warm_start.py run.py ...` is such a launcher that begins cold itself.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

from forked import Forked, run_script, take_environment

ROOT = Path(__file__).parents[2]
POLL = 0.01
"""Seconds between two looks at a process that is waited for."""


class WarmProcess:
    """`python SCRIPT ...` in the project's folder, in a session of its own, with what a `subprocess.Popen` has for its caller.

    Args:
        command: interpreter, script and arguments, as for a cold start.
        out, err: files for its standard output and error; may be the same.
        environment: all its variables.
    """

    def __init__(self, command: Sequence[str], out: Path, err: Path, environment: Mapping[str, str]) -> None:
        self.args, self.out, self.err = command, out, err
        self.returncode: int | None = None
        words = {"words": list(command[1:]), "out": str(out), "err": str(err), "environment": dict(environment)}
        self.pid: int = _ask(words)

    def poll(self) -> int | None:
        """The exit code, minus the signal for a killed process; None while it runs."""
        if self.returncode is None:
            self.returncode = _ask({"wait": self.pid, "timeout": 0})
        return self.returncode

    def wait(self, timeout: float = 240) -> int:
        """The exit code.

        Raises:
            subprocess.TimeoutExpired: it takes longer than so many seconds.
        """
        if self.returncode is None:
            self.returncode = _ask({"wait": self.pid, "timeout": timeout})
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout, self.out.read_text(), self.err.read_text())
        return self.returncode

    def communicate(self, timeout: float = 240) -> tuple[str, str]:
        """Wait for the end; standard output and error."""
        self.wait(timeout)
        return self.out.read_text(), self.err.read_text()

    def send_signal(self, number: int) -> None:
        """Nothing where it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


def run_warm(command: Sequence[str], timeout: float = 240, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python SCRIPT ...` to its end.

    Args:
        command: interpreter, script and arguments, as for a cold start.
        timeout: in seconds.
        environment: variables on top of this process's own.

    Raises:
        subprocess.TimeoutExpired: it takes longer.
    """
    with TemporaryDirectory() as folder:
        process = WarmProcess(command, Path(folder, "out"), Path(folder, "err"), os.environ | environment)
        try:
            out, err = process.communicate(timeout)
        finally:
            process.kill()
        return subprocess.CompletedProcess(list(command), process.wait(), out, err)


def _ask(request: dict[str, Any]) -> Any:
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


@cache
def _server() -> subprocess.Popen[str]:
    """Ends when its standard input is closed, at the latest with this process."""
    return subprocess.Popen([sys.executable, __file__], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _serve() -> None:
    """Answer each request, a line of JSON: a start with the process, a wait with its exit code, null where time ran out."""
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    _import_slow_libraries()
    for line in requests:
        request = json.loads(line)
        if "wait" in request:
            answer = _exit_code(request["wait"], request["timeout"])
        else:
            answer = os.fork()
            if answer == 0:
                requests.close()  # a run must not hold the server's pipes
                answers.close()
                _become_a_run(request)
                return
        json.dump(answer, answers)
        answers.write("\n")
        answers.flush()


def _import_slow_libraries() -> None:
    """What every run imports, and its launcher; nothing here may start a thread."""
    for name in ("Pretrain", "Retrieval", "Grounding", "engine.cli", "engine.config.loader", "engine.launch.agent"):
        importlib.import_module(name)


def _become_a_run(request: dict[str, Any]) -> None:
    os.setsid()
    with open(os.devnull) as nothing, open(request["out"], "w") as out:
        err = out if request["err"] == request["out"] else open(request["err"], "w")  # noqa: SIM115 - copied below, and then the process's
        for descriptor, file in enumerate((nothing, out, err)):
            os.dup2(file.fileno(), descriptor)
    take_environment(request["environment"])
    subprocess_handler.Popen = Forked  # pyright: ignore[reportPrivateImportUsage]
    run_script(request["words"])


def _exit_code(child: int, timeout: float) -> int | None:
    deadline = time.monotonic() + timeout
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            return None
        time.sleep(POLL)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    if sys.argv[1:]:
        _import_slow_libraries()
        subprocess_handler.Popen = Forked  # pyright: ignore[reportPrivateImportUsage]
        run_script(sys.argv[1:])
    else:
        _serve()
