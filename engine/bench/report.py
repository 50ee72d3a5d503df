"""What a measurement is asked for and what it gives: the interface between `run.py bench` and everything that can be measured.

A measure is a function `run(request: BenchRequest) -> BenchReport` in a module of this package, named in `engine.bench.command.MEASURES`.
It prints nothing and writes no file: text, JSON and picture are made from the report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.config.schema import RunConfig
from evaluation.tables import Table, plain_text

Data = Literal["synthetic", "real"]
"""Where batches come from: made from the config alone, or read from the config's own files."""


@dataclass(frozen=True)
class Comparison:
    """One `--compare KEY=A,B`."""

    key: str
    """Dotted, as for `--set`."""
    values: tuple[str, ...]
    """As written, each in YAML."""
    configs: tuple[RunConfig, ...]
    """The config with each of the values, everything else equal."""


@dataclass(frozen=True)
class BenchRequest:
    """What to measure. A measure reads what concerns it and leaves the rest aside."""

    config: RunConfig
    """Checked, with all `--set` applied. Nothing that it points at need exist with synthetic data."""
    path: Path
    """The config's file, for messages."""
    overrides: Sequence[str] = ()
    """`--set` as given: what a child process needs to load the same config."""
    data: Data = "synthetic"
    steps: int = 10
    """Timed repetitions."""
    warmup: int = 2
    """Repetitions before them, which do not count."""
    seed: int = 1
    """All random draws follow from it; the config's own."""
    fixed_length: int | None = None
    """Synthetic texts all have this many tokens; None: realistic lengths."""
    by_stage: bool = False
    """Also say where the time of a step goes."""
    comparisons: Sequence[Comparison] = ()
    reference: Path | None = None
    """Published figures to set the result beside (YAML, see configs/bench/)."""


@dataclass(frozen=True)
class BenchReport:
    """What was measured: tables for people, the same as numbers for programs."""

    title: str
    """One line: what was measured and how."""
    tables: Mapping[str, Table]
    """Heading -> table, in the order to be shown."""
    numbers: dict[str, Any]
    """JSON values by snake_case name, units in the name where they have one (seconds_per_step, peak_tflops). A measure documents its own.
    `stages` {name: seconds} is drawn as a stacked bar where it is there."""
    notes: Sequence[str] = field(default_factory=tuple)
    """Sentences below the tables: how a number was taken, what it leaves out."""

    def text(self) -> str:
        """Everything as plain text, without a line break at the end."""
        parts = [self.title]
        parts += [f"{heading}\n{plain_text(table)}" if heading else plain_text(table) for heading, table in self.tables.items()]
        return "\n\n".join([*parts, *(["\n".join(self.notes)] if self.notes else [])])
