"""run.py, or another script, in processes that begin with the slow libraries imported: forked from one that has done nothing else.

A run of a few steps spends most of its time on imports. `run_warm` starts a server at its first call, for the rest of the tests of this
process; what it forks is a process of its own in all other ways, with its own exit. Ranks that a launcher starts begin cold as always.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[2]


def run_warm(command: list[str], timeout: float = 240, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python SCRIPT ...` in the project's folder to its end.

    Args:
        command: interpreter, script and arguments, as for a cold start.
        timeout: in seconds.
        environment: variables on top of this process's own.

    Raises:
        subprocess.TimeoutExpired: it takes longer.
    """
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    with TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        request = {"words": command[1:], "out": str(out), "err": str(err), "timeout": timeout, "environment": os.environ | environment}
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        code = json.loads(server.stdout.readline())
        if code is None:
            raise subprocess.TimeoutExpired(command, timeout, out.read_text(), err.read_text())
        return subprocess.CompletedProcess(command, code, out.read_text(), err.read_text())


@cache
def _server() -> subprocess.Popen[str]:
    """Ends when its standard input is closed, at the latest with this process."""
    return subprocess.Popen([sys.executable, __file__], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _serve() -> None:
    """Answer each request, a line of JSON, with an exit code; null where time ran out."""
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    _import_slow_libraries()
    for line in requests:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            requests.close()  # a run must not hold the server's pipes
            answers.close()
            _become_a_run(request)
            return
        json.dump(_exit_code(child, request["timeout"]), answers)
        answers.write("\n")
        answers.flush()


def _import_slow_libraries() -> None:
    """What every run imports, and its launcher; nothing here may start a thread."""
    for name in ("Pretrain", "Retrieval", "Grounding", "engine.cli", "engine.config.loader", "engine.launch.agent"):
        importlib.import_module(name)


def _become_a_run(request: dict[str, Any]) -> None:
    with open(os.devnull) as nothing, open(request["out"], "w") as out, open(request["err"], "w") as err:
        for descriptor, file in enumerate((nothing, out, err)):
            os.dup2(file.fileno(), descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["words"]
    runpy.run_path(sys.argv[0], run_name="__main__")


def _exit_code(child: int, timeout: float) -> int | None:
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, timeout)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    late = signal.setitimer(signal.ITIMER_REAL, 0)[0] == 0
    return None if late else code


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    _serve()
