"""Clocks: marks that are set without waiting for the device, read when the work is done; and the same for counted operations.

A stage is a named part of a step. Stages nest; the time between two marks belongs to the innermost one, so that all stages together make
the whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Protocol

import torch

OTHER = "other"
"""What belongs to no named stage."""


class Marker(Protocol):
    """A clock."""

    def mark(self) -> Any:
        """This moment, in the clock's own form."""
        ...

    def between(self, begin: Any, end: Any) -> float:
        """From one moment to another, in seconds (or operations); only after `wait`."""
        ...

    def wait(self) -> None:
        """Until all that was asked of the device is done."""
        ...


class HostMarker:
    """The wall clock, for work on the CPU."""

    def mark(self) -> float:
        """Now."""
        return time.perf_counter()

    def between(self, begin: float, end: float) -> float:
        """Seconds."""
        return end - begin

    def wait(self) -> None:
        """Nothing is under way."""


class CudaMarker:
    """Events in the device's queue: what lies between two of them is what the device took, idle time included."""

    def mark(self) -> torch.cuda.Event:
        """The moment when the device has come this far."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, begin: torch.cuda.Event, end: torch.cuda.Event) -> float:
        """Seconds."""
        return begin.elapsed_time(end) / 1000.0

    def wait(self) -> None:
        """Until the device is idle."""
        torch.cuda.synchronize()


class CountMarker:
    """A running count in the place of time.

    Args:
        count: the number so far.
    """

    def __init__(self, count: Callable[[], int]) -> None:
        self.count = count

    def mark(self) -> int:
        """The number so far."""
        return self.count()

    def between(self, begin: int, end: int) -> float:
        """How many were added."""
        return float(end - begin)

    def wait(self) -> None:
        """Nothing is under way."""


def marker_for(device: torch.device) -> Marker:
    """The clock of a device."""
    return CudaMarker() if device.type == "cuda" else HostMarker()


class StageClock:
    """Marks the changes from stage to stage.

    Args:
        marker: the clock.
    """

    def __init__(self, marker: Marker) -> None:
        self.marker = marker
        self._marks: list[tuple[str, Any]] = []
        self._stack: list[str] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What is done inside belongs to this stage, but for the stages inside it."""
        self._stack.append(name)
        self._marks.append((name, self.marker.mark()))
        try:
            yield
        finally:
            self._stack.pop()
            self._marks.append((self._stack[-1] if self._stack else "", self.marker.mark()))

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """A function whose calls are a stage."""

        def run(*arguments: Any, **named: Any) -> Any:
            with self.stage(name):
                return call(*arguments, **named)

        return run

    def take(self) -> dict[str, float]:
        """Sum of each stage since the last call, in order of first appearance; what was outside of all stages is left out."""
        self.marker.wait()
        totals: dict[str, float] = {}
        for (name, begin), (_, end) in pairwise(self._marks):
            if name:
                totals[name] = totals.get(name, 0.0) + self.marker.between(begin, end)
        self._marks = []
        return totals
