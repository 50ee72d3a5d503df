"""Pre-training in a world that goes wrong: an entry script that does as SCENE says, in every process.

SCENE is one of
    "truncate ITEM FILE", "remove ITEM FILE", "kill ITEM": what happens when a process prepares that item of its batches,
    "poison WITH RANK FIRST LAST": what is added to a loss of that rank's steps FIRST to LAST, "nan" or "inf",
    "linger FILE": every batch of a grounding evaluation takes a while, and the file appears with the first.
Without one all goes well. faulty:// is known (see `faulty_files`). `faulty_run.py launch ...` is run.py with this script as its task.
"""

import itertools
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))


import faulty_files
from dataset.batches import MixedBatches
from dataset.tasks.grounding import GroundingBatch
from engine.cli import main as run_py
from engine.evaluators import GroundingEvaluator
from engine.evaluators.grounding_methods import Found
from engine.launch import Entry, launch
from models.tasks.pretrain import Pretraining
from models.vlm import VisionLanguageModel
from Pretrain import main


def truncate(file: str) -> None:
    os.truncate(file, 100)


def remove(file: str) -> None:
    Path(file).unlink(missing_ok=True)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def poison(value: str, rank: str, first: str, last: str) -> None:
    """Make losses of one rank no numbers."""
    name, forward, steps = "images/itc", Pretraining.forward, itertools.count(1)

    def poisoned(self: Pretraining, *arguments, **named):
        losses = forward(self, *arguments, **named)  # of all streams, or of one in its turn
        if name in losses and int(first) <= next(steps) <= int(last) and os.environ.get("RANK", "0") == rank:
            losses[name] = losses[name] + float(value)
        return losses

    Pretraining.forward = poisoned


def linger(file: str) -> None:
    """Make evaluation slow."""
    predict = GroundingEvaluator._predict

    def slowly(self: GroundingEvaluator, model: VisionLanguageModel, batch: GroundingBatch) -> Found:
        Path(file).touch()
        time.sleep(0.5)
        return predict(self, model, batch)

    GroundingEvaluator._predict = slowly


def play(scene: str) -> None:
    """Let the scene happen."""
    name, *arguments = scene.split(" ")
    if name in ("poison", "linger"):
        {"poison": poison, "linger": linger}[name](*arguments)
    else:
        at_item(name, *arguments)


def at_item(name: str, item: str, *arguments: str) -> None:
    """Let it happen when an item is prepared."""
    act: Callable[..., None] = {"truncate": truncate, "remove": remove, "kill": kill}[name]
    prepare = MixedBatches.__getitem__

    def prepare_after_the_scene(self: MixedBatches, index: int):
        if index == int(item):
            act(*arguments)
        return prepare(self, index)

    MixedBatches.__getitem__ = prepare_after_the_scene


if __name__ == "__main__":
    faulty_files.register()
    if os.environ.get("SCENE") and not faulty_files.playing:  # a rank forked from a launcher has its scene already
        faulty_files.playing = True
        play(os.environ["SCENE"])
    if sys.argv[1:2] == ["launch"]:
        sys.exit(run_py(sys.argv[2:], {"pretrain": Entry(Path(__file__).resolve(), "Pre-training that goes wrong.")}))
    launch(main, "pretrain")
