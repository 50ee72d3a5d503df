"""The course of a run from its metrics.jsonl, one JSON object a line.

A line has "step" (int), "kind" (train, validation or test), "time" (seconds, any clock) and any further numbers, for example
{"step": 40, "kind": "train", "time": 1700000012.3, "loss": 5.1, "images/itc": 2.9, "lr": 1e-4, "samples_per_second": 310,
"data_wait": 0.02}.
"""

import json
import logging
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

METRICS_LINES = "metrics.jsonl"
PAUSE = 600.0
"""A gap between two lines may be a pause, not work, if it is longer than this many seconds."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Curve:
    """Values of one name over the steps at which it was logged."""

    steps: np.ndarray
    """[n] ascending."""
    values: np.ndarray
    """[n], may hold NaN."""


@dataclass(frozen=True)
class History:
    """All curves of a run by kind of line and name."""

    curves: dict[str, dict[str, Curve]]
    seconds: float
    """Time at work, without the pause between a kill and its resume."""

    def of(self, kind: str) -> dict[str, Curve]:
        """Name -> curve of the lines of one kind; empty where there are none."""
        return self.curves.get(kind, {})


def read_history(path: Path) -> History:
    """Read a metrics.jsonl, as far as it can be read.

    A killed run may leave half a line, and a resumed run logs some steps again: a line that is not a JSON object with a step is left
    out, and where the steps of a kind go back, the resumed run's lines replace what the killed run logged from there on.

    Args:
        path: the file; a missing one gives an empty history.

    Returns:
        The curves and the time at work.
    """
    lines = _lines(path)
    kept: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        of_kind = kept.setdefault(str(line.get("kind", "train")), [])
        while of_kind and of_kind[-1]["step"] > line["step"]:
            of_kind.pop()
        if of_kind and of_kind[-1]["step"] == line["step"]:
            of_kind[-1] = of_kind[-1] | line
        else:
            of_kind.append(line)
    return History({kind: _curves(of_kind) for kind, of_kind in kept.items()}, _seconds(lines))


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    lines, unreadable = [], 0
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if isinstance(line, dict) and _is_number(line.get("step")):
            lines.append(line)
        else:
            unreadable += bool(text.strip())
    if unreadable:
        logger.info("%s: left out %d lines that are not complete", path, unreadable)
    return lines


def _curves(lines: list[dict[str, Any]]) -> dict[str, Curve]:
    points: dict[str, tuple[list[float], list[float]]] = {}
    for line in lines:
        for name, value in line.items():
            if name not in ("step", "time") and _is_number(value):
                steps, values = points.setdefault(name, ([], []))
                steps.append(line["step"])
                values.append(value)
    return {name: Curve(np.array(steps), np.array(values, dtype=np.float64)) for name, (steps, values) in points.items()}


def _seconds(lines: list[dict[str, Any]]) -> float:
    """Sum of the times between lines. What lies between a kill and its resume does not count: there the step or the clock goes back, or
    the gap is far longer than the others."""
    timed = [(line["step"], float(line["time"])) for line in lines if _is_number(line.get("time"))]
    gaps = [after - before for (step, before), (next_step, after) in pairwise(timed) if next_step >= step and after > before]
    if not gaps:
        return 0.0
    longest = max(PAUSE, 20 * float(np.median(gaps)))
    return sum(gap for gap in gaps if gap <= longest)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
