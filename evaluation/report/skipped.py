"""Skipped records for the report: by stream and cause, with examples."""

from collections.abc import Sequence
from dataclasses import dataclass

from common.errors import FAULT_LABELS
from evaluation.tables import RunResult

EXAMPLES = 3
SEPARATOR = " | "
"""Of the lines in bad_records.txt: STREAM | CAUSE | TEXT."""


@dataclass(frozen=True)
class StreamRow:
    """A row of the table, ready to print."""

    name: str
    read: str
    causes: tuple[str, ...]
    """Skipped records, in the order of `FAULT_LABELS`."""
    share: str
    """Of the records read."""
    slow: str
    examples: tuple[str, ...]


def skipped_by_stream(result: RunResult, lines: Sequence[str]) -> list[StreamRow]:
    """The rows of all streams; none where the run has no counts by stream.

    Args:
        result: of the run.
        lines: of its bad_records.txt.
    """
    rows = []
    for name, counts in (result.streams or {}).items():
        causes = [counts.get(kind, 0) for kind in FAULT_LABELS]
        read = counts.get("read", 0)
        share = f"{sum(causes) / read:.2%}" if read else "-"
        own = [text for stream, text in map(_example, lines) if stream == name]
        numbers = tuple(f"{count:,}" for count in causes)
        rows.append(StreamRow(name, f"{read:,}", numbers, share, f"{counts.get('slow', 0):,}", tuple(own[:EXAMPLES])))
    return rows


def _example(line: str) -> tuple[str, str]:
    """The stream of a line, and what stands after it."""
    stream, _, text = line.partition(SEPARATOR)
    return stream, text.replace(SEPARATOR, ": ", 1)
