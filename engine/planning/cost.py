"""How long it takes: operations, a device's peak, and how much of the peak is assumed to be reached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from common.errors import UserError

PEAKS: Mapping[str, tuple[float, str]] = {
    "a100": (312e12, "NVIDIA A100 data sheet"),
    "h100": (989e12, "NVIDIA H100 SXM data sheet"),
    "h200": (989e12, "NVIDIA H200 SXM data sheet"),
    "l40s": (362e12, "NVIDIA L40S data sheet"),
    "rtx4090": (165e12, "NVIDIA Ada whitepaper, GeForce RTX 4090, float32 accumulation"),
}
"""Dense bf16 operations a second, and where they are published."""
DAY = 86_400.0
ENCODERS = ("vision", "text", "fusion")
"""Stages whose blocks can be recomputed; in the names of `engine.bench.flops.FlopCount`."""


@dataclass(frozen=True)
class Device:
    """What a GPU can do."""

    name: str
    peak: float
    """Operations a second."""
    source: str


def device_of(name: str, peak: float | None) -> Device:
    """A device by its name, or by its peak.

    Raises:
        UserError: the name is not in the table.
    """
    if peak is not None:
        return Device("given", peak, "--peak")
    if name not in PEAKS:
        near = get_close_matches(name, PEAKS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UserError(f"--device {name}: not in the table ({', '.join(PEAKS)}).{hint} Give its dense bf16 peak instead: --peak 989e12.")
    return Device(name, *PEAKS[name])


@dataclass(frozen=True)
class Operations:
    """Of one optimizer step over all GPUs."""

    stages: Mapping[str, float]
    """Forward operations by stage, and "backward" for the gradients of all."""

    @classmethod
    def sum(cls, parts: Iterable[Operations]) -> Operations:
        """Of all parts together."""
        stages: dict[str, float] = {}
        for part in parts:
            for stage, value in part.stages.items():
                stages[stage] = stages.get(stage, 0.0) + value
        return cls(stages)

    @property
    def step(self) -> float:
        """Forward and backward, nothing computed twice."""
        return sum(self.stages.values())

    def recomputed(self, share: float) -> float:
        """What is computed again in the backward pass when a share of each encoder's blocks is recomputed."""
        return share * sum(value for stage, value in self.stages.items() if stage.startswith(ENCODERS))

    @property
    def collected(self) -> float:
        """The pass that collects contrastive features before accumulated micro-batches."""
        return self.stages.get("vision", 0.0) + self.stages.get("text", 0.0)


@dataclass(frozen=True)
class Speed:
    """What is assumed of the GPUs."""

    device: Device
    mfu: float
    """Share of the peak that is reached, over the whole step."""
    gpus: int

    def step_seconds(self, operations: float) -> float:
        """Of one optimizer step whose operations all GPUs share."""
        return operations / (self.gpus * self.device.peak * self.mfu)

    def gpu_days(self, steps: int, operations: float) -> float:
        """Days of one GPU that a whole run costs."""
        return steps * self.step_seconds(operations) * self.gpus / DAY
