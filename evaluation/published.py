"""Published numbers beside those of finished runs, one table a paper."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from common.errors import UserError
from evaluation.tables import MISSING, Table

UNVERIFIED = "unverified"
MARK = "?"
"""Behind a published number that was seen in no document."""
COLUMNS = ("model", "data", "task", "metric", "published", "ours", "difference", "checkpoint", "config", "commit", "seed")
DIGITS = 2


@dataclass(frozen=True)
class PublishedNumber:
    """One number of a paper."""

    paper: str
    """Short name: x-vlm, x2-vlm, cclm, x-fm, mvp."""
    model: str
    data: str
    task: str
    split: str
    metric: str
    value: float
    source: str

    @property
    def shown(self) -> str:
        """The value, marked where it is unverified."""
        return f"{self.value:.{DIGITS}f}{MARK if self.source == UNVERIFIED else ''}"


@dataclass(frozen=True)
class FinishedRun:
    """What a finished run says of itself."""

    name: str
    metrics: Mapping[str, float]
    paper: str | None = None
    """Of these four: what its recipe says it repeats; None where it says nothing."""
    model: str | None = None
    data: str | None = None
    task: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    """Published name of a metric to its name in the run, where they differ."""
    checkpoint: str = MISSING
    config: str = MISSING
    commit: str = MISSING
    seed: str = MISSING

    def repeats(self, number: PublishedNumber) -> bool:
        """Whether the number is of what this run repeats."""
        return (self.paper, self.model, self.data, self.task) == (number.paper, number.model, number.data, number.task)

    def value(self, metric: str) -> float | None:
        """Its value for a published metric."""
        return self.metrics.get(self.names.get(metric, metric))


def read_published(folder: Path) -> dict[str, tuple[str, list[PublishedNumber]]]:
    """Titles and numbers of all papers, by their short names.

    Raises:
        UserError: a file is not of the documented form, see configs/published/.
    """
    return dict(_read_paper(file) for file in sorted(folder.glob("*.yaml")))


def _read_paper(file: Path) -> tuple[str, tuple[str, list[PublishedNumber]]]:
    try:
        content: dict[str, Any] = YAML(typ="safe").load(file.read_text(encoding="utf-8"))
        name, title, rows = str(content["name"]), str(content["paper"]), content["rows"]
        numbers = [
            PublishedNumber(name, row["model"], str(row["data"]), row["task"], str(row["split"]), metric, float(value), row["source"])
            for row in rows
            for metric, value in row["metrics"].items()
        ]
    except (YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{file}: not a file of published numbers ({error!r}); expected name, paper and rows.") from error
    return name, (title, numbers)


def comparison(numbers: Sequence[PublishedNumber], runs: Sequence[FinishedRun], everything: bool = False) -> Table:
    """Published numbers beside those of the runs that repeat them.

    Args:
        numbers: of one paper.
        runs: finished ones; those of other papers are left out.
        everything: also numbers that no run repeats.
    """
    rows: list[tuple[str, ...]] = []
    for number in numbers:
        about = (number.model, number.data, number.task, f"{number.metric} ({number.split})", number.shown)
        found = [(run, value) for run in runs if run.repeats(number) and (value := run.value(number.metric)) is not None]
        for run, value in found:
            beside = (f"{value:.{DIGITS}f}", f"{value - number.value:+.{DIGITS}f}", run.checkpoint, run.config, run.commit, run.seed)
            rows.append((*about, *beside))
        if everything and not found:
            rows.append((*about, *[MISSING] * 6))
    return Table(COLUMNS, tuple(rows), tuple(column in ("published", "ours", "difference", "seed") for column in COLUMNS))


def other_runs(runs: Sequence[FinishedRun], numbers: Sequence[PublishedNumber]) -> Table:
    """Runs that repeat no published number, a row for each of their metrics."""
    rows = [
        (run.name, metric, f"{value:.{DIGITS}f}", run.checkpoint, run.config, run.commit, run.seed)
        for run in runs
        if not any(run.repeats(number) and run.value(number.metric) is not None for number in numbers)
        for metric, value in run.metrics.items()
    ]
    return Table(("run", "metric", "ours", *COLUMNS[-4:]), tuple(rows), (False, False, True, False, False, False, True))
