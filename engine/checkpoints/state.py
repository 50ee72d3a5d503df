"""What a checkpoint holds beside tensors."""

from dataclasses import dataclass, field, fields
from typing import Any

from common.errors import UserError


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
    nonfinite: int = 0
    """Optimizer steps that were left out because a loss or gradient was not finite."""
    evaluated: int = 0
    """Step after which the last whole evaluation was."""
    best_step: int | None = None
    best_value: float | None = None
    seconds: float = 0.0
    """Training time so far, over all starts."""
    world: int = 1


def read_state(values: Any, source: str) -> TrainState:
    """A state as state.json holds it; entries that an older version did not write take their defaults.

    Args:
        values: the parsed file.
        source: the file, for messages.

    Raises:
        ValueError: no mapping.
        UserError: the file holds what this version does not know, which may matter.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{source} holds no mapping")
    unknown = sorted(values.keys() - {known.name for known in fields(TrainState)})
    if unknown:
        raise UserError(
            f"{source}: {', '.join(unknown)}: unknown here, so it was written by a newer version. "
            "Go on with that version, or move the folder away to start over."
        )
    return TrainState(**values)
