"""Pre-training in a world that goes wrong: an entry script that does as SCENE says, in every process.

SCENE is "truncate ITEM FILE", "remove ITEM FILE" or "kill ITEM": what happens when a process prepares that item of its batches. Without
one all goes well. faulty:// is known (see `faulty_files`).
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))

import faulty_files
from dataset.batches import MixedBatches
from engine.launch import launch
from Pretrain import main


def truncate(file: str) -> None:
    os.truncate(file, 100)


def remove(file: str) -> None:
    Path(file).unlink(missing_ok=True)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def play(scene: str) -> None:
    """Let the scene happen at its item."""
    name, item, *arguments = scene.split(" ")
    act: Callable[..., None] = {"truncate": truncate, "remove": remove, "kill": kill}[name]
    prepare = MixedBatches.__getitem__

    def prepare_after_the_scene(self: MixedBatches, index: int):
        if index == int(item):
            act(*arguments)
        return prepare(self, index)

    MixedBatches.__getitem__ = prepare_after_the_scene


if __name__ == "__main__":
    faulty_files.register()
    if os.environ.get("SCENE"):
        play(os.environ["SCENE"])
    launch(main, "pretrain")
