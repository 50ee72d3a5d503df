"""What a user sees while a run trains: a bar on a terminal, a line at each log step elsewhere and in the log file."""

import logging
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

logger = logging.getLogger(__name__)


def set_up_logging(output_dir: Path, main_rank: bool) -> Console:
    """Send the log to the terminal (main rank) and to OUTPUT_DIR/log.txt; returns the console that the bar shares with it."""
    console = Console(stderr=True, soft_wrap=not sys.stderr.isatty())
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(logging.INFO if main_rank else logging.WARNING)
    plain = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")
    if main_rank:
        file = logging.FileHandler(output_dir / "log.txt")
        file.setFormatter(plain)
        root.addHandler(file)
    if sys.stderr.isatty():
        root.addHandler(RichHandler(console=console, show_path=False, log_time_format="%H:%M:%S"))
    else:
        stream = logging.StreamHandler()
        stream.setFormatter(plain)
        root.addHandler(stream)
    for noisy in ("httpx", "matplotlib", "PIL", "accelerate", "torch.distributed"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return console


def log_line(step: int, total: int, numbers: Mapping[str, float]) -> str:
    """One line for a log step: losses, throughput, share of time spent waiting for data, time left."""
    shown = [f"{name} {value:.3f}" for name, value in numbers.items() if name == "loss" or "/" in name]
    left = timedelta(seconds=round((total - step) * numbers["seconds_per_step"]))
    shown += [
        f"lr {numbers['lr']:.2e}",
        f"{numbers['samples_per_second']:.1f} samples/s",
        f"data wait {numbers['data_wait_share']:.0%}",
        f"ETA {left}",
    ]
    return f"step {step}/{total}  " + "  ".join(shown)


class ProgressBar:
    """A live bar on a terminal; elsewhere only the log lines are written."""

    def __init__(self, console: Console, total: int, start: int, main_rank: bool) -> None:
        self.total = total
        self.live = console.is_terminal and main_rank
        columns = (TextColumn("{task.completed}/{task.total}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[note]}"))
        self.bar = Progress(*columns, console=console, disable=not self.live)
        self.task = self.bar.add_task("train", total=total, completed=start, note="")
        self.bar.start()

    def advance(self, step: int) -> None:
        """Show that a step is done."""
        self.bar.update(self.task, completed=step)

    def report(self, step: int, numbers: Mapping[str, float]) -> None:
        """Show the numbers of a log step."""
        line = log_line(step, self.total, numbers)
        if self.live:
            self.bar.update(self.task, note=line.split("  ", 1)[1])
        logger.info(line)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self.bar.stop()
