"""Which weights file a path of a run or a checkpoint means."""

from pathlib import Path

from common.errors import UserError
from engine.checkpoint import BEST, CHECKPOINTS, LATEST, MODEL


def find_weights(path: Path) -> Path:
    """The weights file that a path means: a file itself, a checkpoint folder, or a run folder (its best weights, else its latest)."""
    if path.is_file():
        return path
    choices = [path / MODEL, path / CHECKPOINTS / BEST / MODEL]
    pointer = path / CHECKPOINTS / LATEST
    if pointer.is_file():
        choices.append(path / CHECKPOINTS / pointer.read_text().strip() / MODEL)
    for choice in choices:
        if choice.is_file():
            return choice
    raise UserError(f"{path}: neither a weights file, nor a checkpoint folder, nor a run folder with checkpoints.")
