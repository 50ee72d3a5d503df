"""Two or more settings against each other: blocks of steps in turn in one process, so that a machine whose speed drifts drifts for all."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from common.errors import UserError
from engine.bench.marks import Marker
from engine.bench.report import BenchRequest, Comparison

ROUNDS = 5
"""Blocks of each setting, where there are enough steps."""
RUN = Path(__file__).resolve().parents[2] / "run.py"


class Steps(Protocol):
    """What takes steps."""

    def resume(self) -> None:
        """Give the process its settings."""
        ...

    def step(self) -> None:
        """One step."""
        ...


@dataclass(frozen=True)
class Turns:
    """Seconds of each step, by setting and block."""

    blocks: Mapping[str, Sequence[Sequence[float]]]

    def seconds(self, name: str) -> float:
        """Median step of a setting."""
        return median(step for block in self.blocks[name] for step in block)

    def ratios(self, name: str, base: str) -> list[float]:
        """By block, how many times as fast a setting was as the base in the block beside it."""
        pairs = zip(self.blocks[base], self.blocks[name], strict=True)
        return [median(before) / median(after) for before, after in pairs]


def take_turns(subjects: Mapping[str, Steps], steps: int, marker: Marker) -> Turns:
    """Let each subject take `steps` steps, in blocks that alternate.

    Args:
        subjects: by name, warm.
        steps: of each.
        marker: the clock.
    """
    rounds = min(ROUNDS, steps)
    blocks: dict[str, list[list[float]]] = {name: [] for name in subjects}
    for number in range(rounds):
        size = steps * (number + 1) // rounds - steps * number // rounds
        for name, subject in subjects.items():
            subject.resume()
            marker.wait()
            blocks[name].append(time_steps(subject.step, size, marker))
    return Turns(blocks)


def time_steps(step: Callable[[], None], count: int, marker: Marker) -> list[float]:
    """Seconds of so many steps, one after the other."""
    marks = [marker.mark()]
    for _ in range(count):
        step()
        marks.append(marker.mark())
    marker.wait()
    return [marker.between(begin, end) for begin, end in pairwise(marks)]


def memory_alone(request: BenchRequest, comparison: Comparison) -> list[dict[str, Any]]:
    """Memory of each setting, measured in a process of its own: the peak of a process never falls.

    Returns:
        For each value the numbers of a short measurement.

    Raises:
        UserError: a setting does not run; the message is the process's last line.
    """
    return [_measured_alone(request, f"{comparison.key}={value}") for value in comparison.values]


def _measured_alone(request: BenchRequest, override: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bench.json"
        words = [sys.executable, str(RUN), "bench", "--config", str(request.path), "--task", request.config.task, "--data", request.data]
        words += ["--steps", "1", "--warmup", "1", "--out", str(out), "--set", *request.overrides, override]
        words += ["--fixed-length", str(request.fixed_length)] if request.fixed_length is not None else []
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise UserError(f"--compare: a process that measures the memory of {override} ended with exit code {done.returncode}: {last}")
        return json.loads(out.read_text(encoding="utf-8"))["numbers"]
