"""Recorded tensors beside ours: errors, tolerances, and what is missing."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tolerance:
    """An element may differ by `absolute + relative * |recorded|`."""

    absolute: float
    relative: float = 0.0


EXACT = Tolerance(0.0)
ACTIVATIONS = {"float32": Tolerance(5e-5, 1e-5), "float64": Tolerance(1e-9, 1e-9)}
LOSSES = {"float32": Tolerance(5e-6, 5e-7), "float64": Tolerance(1e-9, 1e-9)}
"""float32 shows the structure, float64 also a wrong epsilon or activation function. A large float32 loss may differ in its last digits."""


SINGLE = Tolerance(1e-9, 2.4e-7)
"""Two steps of single precision."""


def tolerance(name: str, recorded: Tensor, dtype: str) -> Tolerance:
    """What an output may differ by: whole numbers not at all, losses less than activations, and what the official code computes in single
    precision even in a model of double by its last digits."""
    if not recorded.is_floating_point():
        return EXACT
    if dtype == "float64" and recorded.dtype == torch.float32:
        return SINGLE
    return (LOSSES if name.startswith("loss_") else ACTIVATIONS)[dtype]


@dataclass(frozen=True)
class Finding:
    """One recorded tensor or number beside ours."""

    scenario: str
    name: str
    dtype: str
    """ "float32", "float64", or "" where there is but one recording."""
    absolute: float = math.nan
    """Largest difference; NaN where there is nothing to compare."""
    relative: float = math.nan
    """Largest difference of an element relative to its recorded size, or to the tensor's mean size where that is larger: an element next
    to zero has no meaningful error of its own."""
    used: float = math.inf
    """Largest share of the tolerance that an element takes up; above 1 is too much."""
    problem: str = ""
    """Why nothing could be compared."""
    row: str = ""
    """The row of a short table that this is one of many in; empty: a row of its own."""

    @property
    def passed(self) -> bool:
        """Whether the two agree."""
        return not self.problem and self.used <= 1.0


def compare(
    scenario: str, name: str, dtype: str, recorded: Tensor, ours: Tensor | None, allowed: Tolerance, mask: Tensor | None = None
) -> Finding:
    """Compare one tensor.

    Args:
        scenario, name, dtype: what it is called.
        recorded: by the official code.
        ours: None where our code gives none, which is a failure.
        allowed: how far elements may differ.
        mask: True where values mean something, broadcastable to `recorded`; None for everywhere.
    """
    if ours is None:
        return Finding(scenario, name, dtype, problem="missing")
    if ours.shape != recorded.shape:
        return Finding(scenario, name, dtype, problem=f"shape {list(ours.shape)}, recorded {list(recorded.shape)}")
    if mask is not None:
        keep = mask.bool().expand_as(recorded)
        ours, recorded = ours[keep], recorded[keep]
    expected, found = recorded.detach().double().flatten(), ours.detach().double().flatten()
    if not len(expected):
        return Finding(scenario, name, dtype, 0.0, 0.0, 0.0)
    error, size = (found - expected).abs(), expected.abs()
    share = torch.where(error == 0, 0.0, error / (allowed.absolute + allowed.relative * size))
    relative = torch.where(error == 0, 0.0, error / size.clamp(min=float(size.mean())))
    most = [float(values.nan_to_num(nan=math.inf, posinf=math.inf).max()) for values in (error, relative, share)]
    return Finding(scenario, name, dtype, most[0], most[1], most[2])


def compare_outputs(
    scenario: str, dtype: str, recorded: Mapping[str, Tensor], ours: Mapping[str, Tensor], masks: Mapping[str, Tensor]
) -> list[Finding]:
    """Compare all recorded outputs of a scenario; what ours gives beyond them is of no interest."""
    return [
        compare(scenario, name, dtype, tensor, ours.get(name), tolerance(name, tensor, dtype), masks.get(name))
        for name, tensor in recorded.items()
    ]


def compare_number(scenario: str, name: str, dtype: str, recorded: float, ours: float | None, allowed: Tolerance) -> Finding:
    """Compare one number. So small that the absolute tolerance counts, its relative error is that of the smallest larger number."""
    found = None if ours is None else torch.tensor(ours, dtype=torch.float64)
    finding = compare(scenario, name, dtype, torch.tensor(recorded, dtype=torch.float64), found, allowed)
    if finding.problem or not allowed.absolute or not allowed.relative:
        return finding
    return replace(finding, relative=finding.absolute / max(abs(recorded), allowed.absolute / allowed.relative))


def exactly(scenario: str, name: str, recorded: object, ours: object) -> Finding:
    """Compare two values that are equal or not."""
    if ours == recorded:
        return Finding(scenario, name, "", 0.0, 0.0, 0.0)
    return Finding(scenario, name, "", problem=f"{ours!r}, recorded {recorded!r}")


def in_one_row(row: str, findings: list[Finding]) -> list[Finding]:
    """The same findings as one row of a short table."""
    return [replace(finding, row=row) for finding in findings]
