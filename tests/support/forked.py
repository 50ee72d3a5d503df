"""A script in a process that is forked from one that has the slow libraries imported already, instead of a new interpreter."""

from __future__ import annotations

import json
import logging
import os
import runpy
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn

MARK = "MULTIGRAIN_TESTED_RUN"
"""The variable with which `processes` finds the processes of a run: the run's log."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGQUIT)


def sessions(log: str | Path) -> Path:
    """The folder in which forked processes that lead a session tell their variables, which the kernel does not know."""
    return Path(f"{log}.sessions")


def take_environment(environment: Mapping[str, str]) -> None:
    """Make these the variables of this process."""
    os.environ.clear()
    os.environ.update(environment)
    if MARK in environment and os.getsid(0) == os.getpid():
        folder = sessions(environment[MARK])
        folder.mkdir(exist_ok=True)
        unfinished = folder / f"{os.getpid()}.unfinished"
        unfinished.write_text(json.dumps(dict(environment)))
        unfinished.rename(folder / str(os.getpid()))


def run_script(words: Sequence[str]) -> None:
    """As `python FILE ...`."""
    sys.argv = list(words)
    runpy.run_path(words[0], run_name="__main__")


class Forked(subprocess.Popen[bytes]):
    """Takes the place of the Popen with which a launcher starts its ranks: `[interpreter, options, FILE.py, ...]`."""

    def __init__(
        self, args: Sequence[str], env: Mapping[str, str], stdout: IO[str] | None, stderr: IO[str] | None, start_new_session: bool
    ) -> None:
        self.args, self.returncode, self.stdin, self.stdout, self.stderr = args, None, None, None, None
        self._waitpid_lock = threading.Lock()
        self._child_created = True
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(env, {1: stdout, 2: stderr}, start_new_session)

    def _run(self, env: Mapping[str, str], files: Mapping[int, IO[str] | None], start_new_session: bool) -> NoReturn:
        code = 1
        try:
            if start_new_session:
                os.setsid()
            for descriptor, file in files.items():
                if file is not None:
                    os.dup2(file.fileno(), descriptor)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            logging.getLogger().handlers.clear()
            take_environment(env)
            run_script(self._script())
            code = 0
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # what the launcher would do at its end is not this process's to do

    def _script(self) -> list[str]:
        words = [str(word) for word in self.args]  # pyright: ignore[reportGeneralTypeIssues]
        return words[next(place for place, word in enumerate(words) if word.endswith(".py")) :]
