"""Checkpoints that survive a kill at any instant: a new folder, flushed to disk, then an atomic pointer.

checkpoints/step-00000500/{model.safetensors, optimizer.safetensors, state.json}
checkpoints/latest        the name of the newest complete folder
checkpoints/best/         the weights that did best on validation
"""

import json
import logging
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.errors import UserError
from common.files import flush, replace_file

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"  # in the folder of a run
MODEL, OPTIMIZER, STATE, LATEST, BEST = "model.safetensors", "optimizer.safetensors", "state.json", "latest", "best"


@dataclass
class TrainState:
    """Everything that is not a tensor. Data order and random numbers are functions of the step, so there is nothing else to keep."""

    step: int = 0
    """Optimizer steps taken."""
    seen: int = 0
    """Records read, over all streams and ranks."""
    faults: int = 0
    """Of these, unusable ones."""
    streams: dict[str, dict[str, int]] = field(default_factory=dict)
    """By stream and what is counted (see `engine.faults.COUNTS`), over all ranks and starts."""
    best_step: int | None = None
    best_value: float | None = None
    seconds: float = 0.0
    """Training time so far, over all starts."""
    world: int = 1


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint."""

    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: TrainState
    folder: Path


class CheckpointStore:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, model: dict[str, Tensor], optimizer: dict[str, Tensor], state: TrainState) -> Path:
        """Write a checkpoint and point `latest` to it; then remove the ones beyond `keep`."""
        name = f"step-{state.step:08d}"
        self._write(name, model, optimizer, state)
        replace_file(self.folder / LATEST, name)
        for old in self._complete()[self.keep :]:
            shutil.rmtree(old, ignore_errors=True)
        return self.folder / name

    def save_best(self, model: dict[str, Tensor], state: TrainState) -> None:
        """Write the weights that did best so far."""
        self._write(BEST, model, {}, state)

    def load_latest(self) -> Checkpoint | None:
        """The newest checkpoint that can be read, or None when there is none; unreadable ones are named in the log."""
        candidates = self._complete()
        pointer = self.folder / LATEST
        if pointer.is_file():
            pointed = self.folder / pointer.read_text().strip()
            candidates = [pointed, *(folder for folder in candidates if folder != pointed)]
        for folder in candidates:
            try:
                return self._read(folder)
            except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
                logger.warning("%s cannot be read (%s); trying the one before it", folder, error)
        if candidates:
            raise UserError(f"{self.folder}: none of the {len(candidates)} checkpoints can be read. Move the folder away to start over.")
        return None

    def load_best(self) -> Checkpoint | None:
        """The weights that did best on validation, or None."""
        return self._read(self.folder / BEST) if (self.folder / BEST / STATE).is_file() else None

    def _complete(self) -> list[Path]:
        return sorted((item.parent for item in self.folder.glob(f"step-*/{STATE}")), reverse=True)

    def _read(self, folder: Path) -> Checkpoint:
        state = TrainState(**json.loads((folder / STATE).read_text()))
        optimizer = load_file(folder / OPTIMIZER) if (folder / OPTIMIZER).is_file() else {}
        return Checkpoint(load_file(folder / MODEL), optimizer, state, folder)

    def _write(self, name: str, model: dict[str, Tensor], optimizer: dict[str, Tensor], state: TrainState) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        target, partial, old = self.folder / name, self.folder / f".{name}.partial", self.folder / f".{name}.old"
        for leftover in (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir()
        save_file(_plain(model), partial / MODEL)
        if optimizer:
            save_file(_plain(optimizer), partial / OPTIMIZER)
        (partial / STATE).write_text(json.dumps(asdict(state), indent=1))
        for file in partial.iterdir():
            flush(file)
        if target.exists():
            target.rename(old)
        partial.rename(target)
        flush(self.folder)
        shutil.rmtree(old, ignore_errors=True)


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
