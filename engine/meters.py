"""Running numbers between two log steps, kept on the device so that a step never waits for the host."""

import math
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from common.distributed import sum_over_ranks, world_size


class DeviceMeans:
    """Sums of scalars on the device; read once at a log step."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int | Tensor] = {}

    def add(self, values: dict[str, Tensor], counted: Tensor | None = None) -> None:
        """Add scalars; nothing is synchronised. Where `counted` (scalar, on the device) is False they are left out."""
        for name, value in values.items():
            value = value.detach().float()
            if counted is not None:
                value = torch.where(counted, value, 0.0)
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + (1 if counted is None else counted.to(value.dtype))

    def means(self) -> dict[str, Tensor]:
        """Means so far, still on the device."""
        return {name: total / self.counts[name] for name, total in self.sums.items()}

    def read(self) -> dict[str, float]:
        """Means over steps and ranks since the last read: the one host sync of a log step."""
        if not self.sums:
            return {}
        names, means = list(self.sums), torch.stack(list(self.means().values()))
        read = dict(zip(names, (sum_over_ranks(means) / world_size()).tolist(), strict=True))
        self.sums, self.counts = {}, {}
        return {name: value for name, value in read.items() if not math.isnan(value)}  # without any counted step there is no mean


@dataclass
class Clock:
    """Where the wall time of the steps goes, on this rank."""

    waited: float = 0.0
    """Seconds spent waiting for data since the last read."""
    started: float = field(default_factory=time.perf_counter)
    steps: int = 0

    def read(self, samples_per_step: int) -> dict[str, float]:
        """Throughput since the last read: samples/s over all ranks, seconds a step, share of the time spent waiting for data."""
        elapsed = max(time.perf_counter() - self.started, 1e-9)
        numbers = {
            "samples_per_second": self.steps * samples_per_step / elapsed,
            "seconds_per_step": elapsed / max(self.steps, 1),
            "data_wait_share": self.waited / elapsed,
        }
        self.waited, self.started, self.steps = 0.0, time.perf_counter(), 0
        return numbers

    def skip(self, seconds: float) -> None:
        """Leave out time that was not training: evaluation, checkpoints."""
        self.started += seconds
