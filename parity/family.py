"""How the recorded scenarios of one official class are computed with this project's models."""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from parity.case import Case


@dataclass(frozen=True)
class Built:
    """Our model with a case's weights in it."""

    model: nn.Module
    sources: dict[str, str]
    """Our parameter names to official ones."""


@dataclass(frozen=True)
class Computed:
    """What our model gives for one scenario."""

    outputs: dict[str, Tensor]
    """Under the recorded names. Rows that mean nothing (padding) are compared where `masks` says so."""
    total: Tensor | None = None
    """The sum of the losses, for the gradients; None where none were recorded."""
    masks: dict[str, Tensor] = field(default_factory=dict)
    """For an output: True where its values mean something, broadcastable to it."""


class Family(Protocol):
    """One official class. `parity.families.FAMILIES` lists all."""

    def covers(self, case: Case) -> bool:
        """Whether the case was recorded from a class that this family computes."""
        ...

    def build(self, case: Case, dtype: torch.dtype) -> Built:
        """Our model of the case, in evaluation mode, with its weights."""
        ...

    def run(self, built: Built, case: Case, scenario: str, dtype: torch.dtype) -> Computed | None:
        """Compute a scenario; None where this project does not cover it yet."""
        ...


@dataclass(frozen=True)
class Stream:
    """One scenario as a batch of a pre-training stream (dataset/streams/base.py)."""

    batch: dict[str, Tensor]
    objectives: dict[str, float]
    negatives: dict[str, Tensor] = field(default_factory=dict)
    """What is drawn, under the recorded names."""


@runtime_checkable
class Trainable(Protocol):
    """A family whose recorded optimiser trajectories can be repeated."""

    def build(self, case: Case, dtype: torch.dtype) -> Built:
        """See `Family`."""
        ...

    def stream(self, built: Built, case: Case, scenario: str, dtype: torch.dtype) -> Stream:
        """A scenario as a batch whose negatives are the likeliest under the model's present weights."""
        ...
