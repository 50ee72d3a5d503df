"""Which weights a path of a run or a checkpoint means."""

from pathlib import Path

from common.errors import UserError
from engine.checkpoints.layout import BEST, CHECKPOINTS, pointed
from models.checkpoints.sharded import weights_in


def find_weights(path: Path) -> Path:
    """The weights that a path means: a file itself, a checkpoint folder, or a run folder (its best weights, else its latest).

    Returns:
        A weights file, or the index of several; `read_checkpoint` reads both.

    Raises:
        UserError: it is none of these.
    """
    if path.is_file():
        return path
    latest = pointed(path / CHECKPOINTS)
    folders = [path, path / CHECKPOINTS / BEST, *([path / CHECKPOINTS / latest] if latest else [])]
    for folder in folders:
        if (found := weights_in(folder)) is not None:
            return found
    raise UserError(f"{path}: neither a weights file, nor a checkpoint folder, nor a run folder with checkpoints.")
