"""A task that does nothing but what a test asks it to, for the launcher's tests."""

import os
import sys
from pathlib import Path

from engine.launch import Entry
from warm_start import WarmProcess, run_warm

CONFIG = """\
# A recipe for the launcher's tests
task: pretrain
tokenizer: {path: data/tokenizer}
streams: {images: {kind: image_text, shards: "images-*.tar", batch_size: 32}}
optimizer: {lr: 1e-4}
schedule: {steps: 100}
"""

SCRIPT = """\
import logging
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, ROOT)

from common.errors import Requeue, UserError
from engine.launch import launch


def main(config, output_dir):
    rank = os.environ.get("RANK", "0")
    (Path(output_dir) / f"rank-{rank}").write_text(f"{config.seed} {os.environ.get('WORLD_SIZE', '1')}")
    BODY


if __name__ == "__main__":
    launch(main, "pretrain")
"""


def fake_task(folder: Path, body: str = "pass") -> tuple[dict[str, Entry], list[str]]:
    """Write a recipe and an entry script whose main ends in `body` (`rank` is a text there).

    Returns:
        Tasks for `engine.cli.main`, and a command line that starts the task into FOLDER/out.
    """
    root = Path(__file__).parents[2]
    script, config = folder / "fake_entry.py", folder / "recipe.yaml"
    script.write_text(SCRIPT.replace("ROOT", repr(str(root))).replace("BODY", body))
    config.write_text(CONFIG)
    command = ["--task", "pretrain", "--config", str(config), "--output_dir", str(folder / "out")]
    return {"pretrain": Entry(script, "A task that does nothing.")}, command


LAUNCHER = """\
import sys
from pathlib import Path

from engine.cli import main
from engine.launch import Entry

sys.exit(main(sys.argv[2:], {"pretrain": Entry(Path(sys.argv[1]), "")}))
"""


def start_launcher(tasks: dict[str, Entry], command: list[str], name: str = "launcher", err: Path | None = None) -> WarmProcess:
    """`engine.cli.main` in a process of its own; what it says is in NAME.out and NAME.err beside its entry script, or in `err`."""
    out, beside = (tasks["pretrain"].script.with_name(f"{name}.{kind}") for kind in ("out", "err"))
    return WarmProcess(_words(tasks, command), out, err or beside, os.environ)


def launch(tasks: dict[str, Entry], command: list[str]) -> tuple[int, str, str]:
    """`engine.cli.main` in a process of its own, to its end: exit code, standard output and error."""
    done = run_warm(_words(tasks, command))
    return done.returncode, done.stdout, done.stderr


def _words(tasks: dict[str, Entry], command: list[str]) -> list[str]:
    file = tasks["pretrain"].script.with_name("launcher.py")
    file.write_text(LAUNCHER)
    return [sys.executable, str(file), str(tasks["pretrain"].script), *command]
