"""Start a task: in this process, or in several through torchrun's own API; every way out has its exit code.

0 done, 1 crash, 2 bad input (one line on stderr), 128 + n killed by signal n (130: Ctrl-C).
"""

import argparse
import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from common.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
"""torchrun's name for the variable that tells a process where to leave its last words."""
REPORTS_ERRORS = "MULTIGRAIN_LAUNCHER_REPORTS_ERRORS"
"""Set by `spawn` for its processes: the launcher prints bad input once, so they need not."""
USER_ERROR = "user_error"

Main = Callable[[Any, Path], None]
"""An entry script's `main(config, output_dir)`."""


@dataclass(frozen=True)
class Entry:
    """A task that can be started."""

    script: Path
    """Has `main(config, output_dir)` and calls `launch` when it is run."""
    summary: str
    """One line for `run.py list`."""


TASKS: dict[str, Entry] = {
    "pretrain": Entry(ROOT / "Pretrain.py", "Pre-train on images, regions and their texts."),
    "retrieval": Entry(ROOT / "Retrieval.py", "Fine-tune and evaluate image-text retrieval, both ways."),
    "grounding": Entry(ROOT / "Grounding.py", "Fine-tune and evaluate visual grounding: the box of a referring expression."),
}


@dataclass(frozen=True)
class Start:
    """What a start was asked for."""

    task: str
    config: Path
    output_dir: Path
    overrides: Sequence[str] = ()

    def arguments(self) -> list[str]:
        """The same for an entry script's command line."""
        sets = [part for override in self.overrides for part in ("--set", override)]
        return ["--config", str(self.config), "--output_dir", str(self.output_dir), *sets]


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line as one line, like any other bad input."""

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """As `parse_args`, but a mistyped option is named before a missing one."""
        for word in arguments:
            option = word.split("=", 1)[0]
            if option.startswith("--") and option not in self._option_string_actions:
                near = get_close_matches(option, self._option_string_actions, n=1)
                raise UserError(f"{self.prog}: {option} is not an option." + (f" Did you mean {near[0]}?" if near else ""))
        return self.parse_args(arguments)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message.rstrip('.')}. See {self.prog} --help.")


def add_start_options(parser: argparse.ArgumentParser) -> None:
    """The options that every way of starting a task has."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the run's YAML file")
    parser.add_argument("--output_dir", type=Path, required=True, metavar="DIR", help="the run's folder; the same one again resumes it")
    add_override_option(parser)


def add_override_option(parser: argparse.ArgumentParser) -> None:
    """`--set`, which every command that reads a config has."""
    text = "settings that go before the file's, with dotted keys: --set optimizer.lr=1e-4 engine.workers=0"
    parser.add_argument("--set", dest="overrides", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help=text)


def launch(main: Main, task: str) -> NoReturn:
    """Run an entry script by itself: `python Pretrain.py --config C --output_dir O`, or the same under torchrun."""

    def call() -> None:
        parser = Parser(prog=Path(sys.argv[0]).name, allow_abbrev=False)
        add_start_options(parser)
        given = parser.parse(sys.argv[1:])
        run_here(main, Start(task, given.config, given.output_dir, given.overrides))

    sys.exit(guard(call))


def guard(call: Callable[[], int | None]) -> int:
    """Call, and turn what ends it into an exit code. Only bugs are left to show a traceback."""
    try:
        return call() or 0
    except UserError as error:
        _report(error)
        return error.exit_code
    except KeyboardInterrupt:
        if not os.environ.get(REPORTS_ERRORS):
            _say("Interrupted.")
        return 128 + signal.SIGINT


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _report(error: UserError) -> None:
    if file := os.environ.get(ERROR_FILE):
        Path(file).write_text(json.dumps({"message": str(error), "timestamp": int(time.time()), USER_ERROR: True}))
        if os.environ.get(REPORTS_ERRORS):
            return
    if os.environ.get("RANK", "0") == "0":
        _say(str(error))


def run_here(main: Main, start: Start) -> None:
    """Load the config, make the folder say what it holds, and run the task in this process.

    Raises:
        UserError: for a bad config, or a folder that holds another run.
    """
    from engine.config.loader import load_config
    from engine.provenance import record_run, refuse_other_run

    loaded = load_config(start.config, start.overrides, start.task)
    refuse_other_run(start.output_dir, loaded.config)
    _make_folder(start.output_dir)
    if os.environ.get("RANK", "0") == "0":
        record_run(start.output_dir, loaded)
    main(loaded.config, start.output_dir)
    _leave_process_group()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output_dir {folder}: cannot be made: {error.strerror}.") from error


def _leave_process_group() -> None:
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def load_script(script: Path) -> ModuleType:
    """Import an entry script from its file."""
    spec = importlib.util.spec_from_file_location(script.stem, script)
    if spec is None or spec.loader is None or not script.is_file():
        raise UserError(f"{script}: the task's script is missing; this installation is incomplete.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[script.stem] = module  # before it runs, so that what it defines can be pickled
    spec.loader.exec_module(module)
    return module


def run_task(entry: Entry, start: Start, processes: int) -> int:
    """Run a task in this process or in several; returns the exit code."""
    if processes < 1:
        raise UserError(f"--nproc {processes}: must be at least 1.")
    if processes > 1:
        return spawn(entry.script, start, processes)
    run_here(load_script(entry.script).main, start)
    return 0


def spawn(script: Path, start: Start, processes: int) -> int:
    """Run an entry script in several processes of this machine; one that fails ends them all.

    Returns:
        0, or the exit code of the process that failed first (128 + n where signal n killed it).
    """
    import torch
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    _check_before(start)
    gpus = torch.cuda.device_count()
    if 0 < gpus < processes:
        raise UserError(f"--nproc {processes}: this machine has {gpus} GPU{'s' if gpus > 1 else ''}, and each process needs its own.")
    _quiet_agent()
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // processes, 1)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=f"multigrain-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",  # a machine need not be able to look up its own name
        max_restarts=0,
    )
    os.environ[REPORTS_ERRORS] = "1"
    try:
        elastic_launch(config, sys.executable)("-u", str(script), *start.arguments())
        return 0
    except ChildFailedError as error:
        return _child_exit(error)
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from error
        return 128 + int(error.sigval)
    finally:
        del os.environ[REPORTS_ERRORS]


def _check_before(start: Start) -> None:
    """Find bad input before several processes do."""
    from engine.config.loader import load_config
    from engine.provenance import refuse_other_run

    refuse_other_run(start.output_dir, load_config(start.config, start.overrides, start.task).config)


def _quiet_agent() -> None:
    """The agent's own log repeats what is said here, in many lines."""
    import logging

    for name in list(logging.root.manager.loggerDict):  # each of them may have a level of its own
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _child_exit(error: Any) -> int:
    """Say once what ended the processes, and give its exit code. The agent stops the others with SIGTERM, so that one counts least."""

    def importance(item: tuple[int, Any]) -> tuple[bool, bool, bool, int, int]:
        rank, failure = item
        stopped = failure.exitcode == -signal.SIGTERM
        return not failure.error_file_data.get(USER_ERROR), stopped, failure.exitcode > 0, failure.timestamp, rank

    rank, failure = min(error.failures.items(), key=importance)
    if failure.error_file_data.get(USER_ERROR):
        _say(failure.message)
    elif failure.exitcode < 0:
        _say(f"Process {rank} was killed by signal {-failure.exitcode} ({failure.signal_name()}).")
    else:
        _say(f"Process {rank} failed with exit code {failure.exitcode}; its traceback is above.")
    return 128 - failure.exitcode if failure.exitcode < 0 else failure.exitcode
