"""Numbers with their baselines beside them, as plain text and as Markdown.

A finished run keeps its numbers in OUTPUT_DIR/metrics.json: {"task": "retrieval", "metrics": {"tr_r1": 31.2, ...},
"baselines": {"chance": {"tr_r1": 0.2, ...}, ...}, "best_step": 400, "seconds": 312.5, "records_read": 25600, "records_skipped": 0,
"streams": {"images": {"read": 25600, "image": 0, "annotation": 0, "shard": 0, "slow": 0}, ...}}.
Metrics may be nested ({"test": {"tr_r1": ...}}), which makes names such as "test/tr_r1"; baselines may use the name with or without
what stands before the last slash. All but "metrics" may be absent.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from evaluation.labels import format_metric, metric_label

MISSING = "-"
METRICS_FILE = "metrics.json"


@dataclass(frozen=True)
class Table:
    """Cells ready to print. `numeric` columns are set flush right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]


@dataclass(frozen=True)
class RunResult:
    """What metrics.json of one run says; a run that is not finished has no metrics."""

    name: str
    task: str | None = None
    metrics: Mapping[str, float] | None = None
    baselines: Mapping[str, Mapping[str, float]] | None = None
    best_step: int | None = None
    seconds: float | None = None
    """Time at work over all starts of the run."""
    records_read: int | None = None
    records_skipped: int | None = None
    streams: Mapping[str, Mapping[str, int]] | None = None
    """By stream: records read, of these skipped by cause (the kinds of `common.errors`), and slow reads."""

    def baseline(self, baseline: str, metric: str) -> float | None:
        """Value of a baseline for a metric, None where it has none."""
        values = (self.baselines or {}).get(baseline, {})
        return values.get(metric, values.get(metric.rpartition("/")[2]))


def read_result(run_dir: Path, name: str | None = None) -> RunResult:
    """Read a run's metrics.json.

    Args:
        run_dir: the run's output folder.
        name: how to call the run, by default as its folder.

    Returns:
        The result; one without metrics where the file does not exist (the run has not finished).

    Raises:
        UserError: the file is not JSON of the documented form.
    """
    path, name = run_dir / METRICS_FILE, name or run_dir.name
    if not path.is_file():
        return RunResult(name)
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        baselines = {key: _flat(values) for key, values in content.get("baselines", {}).items()}
        other = {key: content.get(key) for key in ("task", "best_step", "seconds", "records_read", "records_skipped", "streams")}
        return RunResult(name, metrics=_flat(content["metrics"]), baselines=baselines, **other)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f'{path}: not a result file ({error!r}); expected {{"task": .., "metrics": {{..}}, ..}}') from error


def metrics_table(result: RunResult, metrics: Sequence[str] | None = None) -> Table:
    """One run: a row for each metric, a column for its value and for each baseline."""
    names = list(metrics or result.metrics or ())
    baselines = list(result.baselines or ())
    rows = [
        (
            metric_label(name).text,
            format_metric(name, (result.metrics or {}).get(name)),
            *(format_metric(name, result.baseline(baseline, name)) for baseline in baselines),
        )
        for name in names
    ]
    return Table(("metric", "value", *baselines), tuple(rows), (False, *[True] * (1 + len(baselines))))


def summarise(run_dirs: Sequence[Path] | Mapping[str, Path], metrics: Sequence[str] | None = None) -> Table:
    """Several runs, one below the other: a row for each run and metric, baselines beside the value.

    Args:
        run_dirs: output folders, or names and folders.
        metrics: which metrics and in which order, for runs that have them; by default all of each run.

    Returns:
        Columns run, task, metric, value, one for each baseline that any run has, best step. A run that has not finished is one row
        of "-", so that it is not overlooked.
    """
    results = _read_all(run_dirs)
    baselines = list(dict.fromkeys(name for result in results for name in result.baselines or ()))
    rows: list[tuple[str, ...]] = []
    for result in results:
        values = result.metrics or {}
        names = [name for name in metrics if name in values] if metrics else list(values)
        if not names:
            rows.append((result.name, result.task or MISSING, *[MISSING] * (3 + len(baselines))))
        for name in names:
            beside = (format_metric(name, result.baseline(baseline, name)) for baseline in baselines)
            step = MISSING if result.best_step is None else str(result.best_step)
            rows.append((result.name, result.task or MISSING, metric_label(name).text, format_metric(name, values[name]), *beside, step))
    columns = ("run", "task", "metric", "value", *baselines, "best step")
    return Table(columns, tuple(rows), (False, False, False, *[True] * (2 + len(baselines))))


def side_by_side(run_dirs: Sequence[Path] | Mapping[str, Path], metrics: Sequence[str] | None = None) -> Table:
    """Several runs of one task, one beside the other (seeds, ablations): a row for each metric, a column for each run.

    Args:
        run_dirs: output folders, or names and folders.
        metrics: which metrics and in which order; by default all that any run has.

    Returns:
        Columns metric, one for each run, then one for each baseline, its value taken from the first run that has it.
    """
    results = _read_all(run_dirs)
    names = list(metrics or dict.fromkeys(name for result in results for name in result.metrics or ()))
    baselines = list(dict.fromkeys(name for result in results for name in result.baselines or ()))
    rows: list[tuple[str, ...]] = []
    for name in names:
        values = [format_metric(name, (result.metrics or {}).get(name)) for result in results]
        guesses = [next((v for r in results if (v := r.baseline(guess, name)) is not None), None) for guess in baselines]
        rows.append((metric_label(name).text, *values, *(format_metric(name, guess) for guess in guesses)))
    columns = ("metric", *(result.name for result in results), *baselines)
    return Table(columns, tuple(rows), (False, *[True] * (len(columns) - 1)))


def plain_text(table: Table) -> str:
    """The table with columns of fixed width, two blanks apart, a rule below the head; no line ends in blanks."""
    widths = _widths(table)
    lines = [table.columns, tuple("-" * width for width in widths), *table.rows]
    return "\n".join("  ".join(_pad(cells, widths, table.numeric)).rstrip() for cells in lines)


def markdown(table: Table) -> str:
    """The table in Markdown, its source aligned too; a bar inside a cell is escaped."""
    escaped = Table(
        tuple(_escape(cell) for cell in table.columns), tuple(tuple(_escape(cell) for cell in row) for row in table.rows), table.numeric
    )
    widths = [max(width, 3) for width in _widths(escaped)]
    rule = ["-" * (width - 1) + ":" if right else "-" * width for width, right in zip(widths, table.numeric, strict=True)]
    lines = [escaped.columns, tuple(rule), *escaped.rows]
    return "\n".join(f"| {' | '.join(_pad(cells, widths, table.numeric))} |" for cells in lines)


def _read_all(run_dirs: Sequence[Path] | Mapping[str, Path]) -> list[RunResult]:
    if isinstance(run_dirs, Mapping):
        return [read_result(folder, name) for name, folder in run_dirs.items()]
    return [read_result(folder) for folder in run_dirs]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Nested names joined by a slash; what is not a number (null, text) is left out."""
    flat: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat[prefix + key] = float(value)
    return flat


def _widths(table: Table) -> list[int]:
    return [max(map(len, cells)) for cells in zip(table.columns, *table.rows, strict=True)]


def _pad(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> list[str]:
    return [cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(cells, widths, numeric, strict=True)]


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
