"""A report as the JSON of `--out`.

{"schema": 1, "measure": "step" | "load" | ..., "title", "numbers": {...}, "notes": [...], "environment": {...}}. `numbers` are the
measure's own, see the module that makes it (`engine.bench.steps` for steps). `environment` is what a run folder's environment.json holds
(started, git commit and whether it was changed, command, packages, host, processor, cpus, gpus), and the CPU threads.
A run folder that holds this document as bench.json shows its stages in report.html.
"""

from typing import Any

import torch

from engine.bench.report import BenchReport
from engine.provenance import environment

SCHEMA = 1


def document(measure: str, report: BenchReport) -> dict[str, Any]:
    """Everything that was measured, and where."""
    return {
        "schema": SCHEMA,
        "measure": measure,
        "title": report.title,
        "numbers": report.numbers,
        "notes": list(report.notes),
        "environment": environment() | {"threads": torch.get_num_threads()},
    }
