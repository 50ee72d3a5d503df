"""The tasks, and how one is run: in this process, or in several."""

import argparse
import ctypes
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from common.errors import UserError
from engine.launch.outcome import LAUNCHER, guard

if TYPE_CHECKING:
    from engine.launch.plan import Plan

ROOT = Path(__file__).resolve().parents[2]

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
    "nlvr": Entry(ROOT / "NLVR.py", "Fine-tune and evaluate statements about two images: NLVR2, MaRVL."),
    "classification": Entry(
        ROOT / "Classification.py", "Fine-tune and evaluate labels of images, texts or both: ImageNet, GLUE, SNLI-VE, XVNLI."
    ),
    "vqa": Entry(ROOT / "VQA.py", "Fine-tune and evaluate visual question answering: by ranking, writing or choosing answers."),
    "captioning": Entry(ROOT / "Captioning.py", "Fine-tune and evaluate captioning: COCO, NoCaps, own images; self-critical training."),
    "zero_shot": Entry(ROOT / "ZeroShot.py", "Evaluate without training: classes of images by their names, attributes of objects (OVAD)."),
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


def add_config_options(parser: argparse.ArgumentParser, tasks: Iterable[str]) -> None:
    """The options that every command has which reads a config and starts nothing."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the run's YAML file")
    parser.add_argument("--task", metavar="TASK", help=f"one of {', '.join(tasks)}; default: the file's own")
    add_override_option(parser)


def add_override_option(parser: argparse.ArgumentParser) -> None:
    """`--set`, which every command that reads a config has."""
    text = "settings that go before the file's, with dotted keys: --set optimizer.lr=1e-4 engine.workers=0"
    parser.add_argument("--set", dest="overrides", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help=text)


def launch(main: Main, task: str) -> NoReturn:
    """Run an entry script by itself: `python Pretrain.py --config C --output_dir O`, or the same under torchrun."""
    if launcher := os.environ.get(LAUNCHER):
        _end_with(int(launcher))

    def call() -> None:
        parser = Parser(prog=Path(sys.argv[0]).name, allow_abbrev=False)
        add_start_options(parser)
        given = parser.parse(sys.argv[1:])
        run_here(main, Start(task, given.config, given.output_dir, given.overrides))

    sys.exit(guard(call))


def _end_with(launcher: int) -> None:
    """Let the kernel end this process when its launcher is killed: a new start of the run must not find it still training."""
    if sys.platform == "linux":
        parent_death_signal = 1  # PR_SET_PDEATHSIG of linux/prctl.h
        ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)
    if os.getppid() != launcher:
        sys.exit(128 + signal.SIGKILL)


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


def run_task(entry: Entry, start: Start, plan: "Plan") -> int:
    """Run a task in this process or in several; returns the exit code."""
    if not plan.alone:
        from engine.launch.agent import spawn

        return spawn(entry.script, start, plan)
    with environment(plan.rank):
        run_here(load_script(entry.script).main, start)
    return 0


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Variables of this process and those that it starts, for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
