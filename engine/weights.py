"""Loading a trained model's weights, with a report of what was and was not loaded."""

import logging
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import nn

from common.errors import UserError
from engine.checkpoint import BEST, CHECKPOINTS, LATEST, MODEL
from models.initial_weights import read_state_dict

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Coverage:
    """What a load did, as parameter names."""

    loaded: tuple[str, ...]
    new: tuple[str, ...]
    """Needed by the model, absent from the file, kept as initialised."""
    ignored: tuple[str, ...]
    """In the file, unknown to the model."""

    def __str__(self) -> str:
        parts = [f"loaded {len(self.loaded)} tensors"]
        for label, names in (("newly initialised", self.new), ("not used", self.ignored)):
            if names:
                modules = Counter(name.split(".", 1)[0] for name in names)
                parts.append(f"{label}: " + ", ".join(f"{module} ({count})" for module, count in modules.items()))
        return "; ".join(parts)


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


def check_weights(
    path: Path, own: dict[str, torch.Size], shapes: dict[str, torch.Size], allow_missing: list[str]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Compare the names and shapes of a file with a model's.

    Returns:
        Names in both, only in the model, only in the file.

    Raises:
        UserError: for another shape, or for names that the file lacks and no pattern allows.
    """
    both, missing, ignored = (tuple(sorted(names)) for names in (own.keys() & shapes, own.keys() - shapes, shapes.keys() - own))
    wrong = [name for name in both if own[name] != shapes[name]]
    if wrong:
        name = wrong[0]
        raise UserError(
            f"{path}: {len(wrong)} tensors have another shape than the model's, first {name}: {list(shapes[name])} in the file, "
            f"{list(own[name])} in the model. Check model.* in the config against the config of the run that wrote the file."
        )
    refused = [name for name in missing if not any(fnmatchcase(name, pattern) for pattern in allow_missing)]
    if refused:
        modules = Counter(name.split(".", 1)[0] for name in refused)
        listed = ", ".join(f"{module} ({count})" for module, count in modules.items())
        patterns = ", ".join(f"{module}*" for module in modules)
        raise UserError(
            f"{path} lacks {len(refused)} tensors that the model needs: {listed}. "
            f"To start them fresh set initialize.allow_missing: [{patterns}]"
        )
    return both, missing, ignored


def load_weights(model: nn.Module, path: Path, allow_missing: list[str]) -> Coverage:
    """Load a checkpoint into a model.

    Args:
        model: changed in place.
        path: see `find_weights`.
        allow_missing: fnmatch patterns of parameters that may stay as initialised.

    Returns:
        What was loaded, also written to the log.

    Raises:
        UserError: see `check_weights`; nothing is changed then.
    """
    file = find_weights(path)
    weights = read_state_dict(file)
    own, found = ({name: tensor.shape for name, tensor in tensors.items()} for tensors in (model.state_dict(), weights))
    both, missing, ignored = check_weights(file, own, found, allow_missing)
    model.load_state_dict({name: weights[name] for name in both}, strict=False)
    coverage = Coverage(both, missing, ignored)
    logger.info("%s: %s", file, coverage)
    return coverage
