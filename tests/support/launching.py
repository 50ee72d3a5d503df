"""A task that does nothing but what a test asks it to, for the launcher's tests."""

import subprocess
import sys
from pathlib import Path

from engine.launch import Entry

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


def start_launcher(tasks: dict[str, Entry], command: list[str], stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """`engine.cli.main` in a process of its own, with its standard output in a pipe and its standard error too, if not elsewhere."""
    root = Path(__file__).parents[2]
    words = [sys.executable, "-c", LAUNCHER, str(tasks["pretrain"].script), *command]
    return subprocess.Popen(words, cwd=root, stdout=subprocess.PIPE, stderr=stderr, text=True)
