"""Unusable records: counted by stream and cause over all ranks, listed in a file, fatal beyond a share."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from common.distributed import gather_objects, is_main, sum_over_ranks
from common.errors import FAULT_LABELS, UserError
from dataset.batches import StreamBatch
from engine.checkpoints.state import TrainState

logger = logging.getLogger(__name__)

READ, SLOW = "read", "slow"
COUNTS: tuple[str, ...] = (READ, *FAULT_LABELS, SLOW)
"""What is counted for each stream: records read, of these the unusable ones by cause, and reads that took too long."""
SHOWN = 3
"""Faults written to the log at a time."""
TOLD = 200
"""Texts that a rank hands over at a time."""
LISTED = 20_000
"""Most lines of the file; what comes later is counted only."""
ENOUGH = 500
"""Records of one stream after which it alone can stop the run."""
SEPARATOR = " | "


class FaultCounter:
    """Collects what the loader skipped; only `settle` talks to other ranks.

    Args:
        file: lists the records, one a line, each once: STREAM | CAUSE | TEXT.
        limit: share of the records above which the run stops.
        streams: names of all streams, in the same order on every rank.
    """

    def __init__(self, file: Path, limit: float, streams: Sequence[str] = ()) -> None:
        self.file = file
        self.limit = limit
        self.streams = tuple(streams)
        self.counts = {name: dict.fromkeys(COUNTS, 0) for name in self.streams}
        self.lines: dict[str, None] = {}
        self.slow: dict[str, float] = {}
        self._listed = _lines_of(file) if is_main() else set()
        self._slow_files: set[str] = set()

    def add(self, batches: Iterable[StreamBatch]) -> None:
        """Note the records of one micro-batch."""
        for batch in batches:
            counts = self.counts.setdefault(batch.stream, dict.fromkeys(COUNTS, 0))
            counts[READ] += batch.seen
            counts[SLOW] += len(batch.slow)
            for fault in batch.faults:
                counts[fault.kind] += 1
                if len(self.lines) < TOLD:
                    text = " ".join(fault.text.split())  # whatever it quotes: one line
                    self.lines[SEPARATOR.join((batch.stream, FAULT_LABELS[fault.kind], text))] = None
            for read in batch.slow:
                if len(self.slow) < TOLD:
                    self.slow[read.file] = max(read.seconds, self.slow.get(read.file, 0.0))

    def settle(self, state: TrainState, device: torch.device) -> None:
        """Add the counts of all ranks to the run's state; all ranks stop together when too many records are unusable.

        Raises:
            UserError: above the limit, over all streams or in one; on every rank the same, with an example.
        """
        names = list(self.counts)
        mine = torch.tensor([[self.counts[name][key] for key in COUNTS] for name in names], dtype=torch.int64, device=device)
        total: list[list[int]] = sum_over_ranks(mine).tolist()
        new = {name: dict(zip(COUNTS, row, strict=True)) for name, row in zip(names, total, strict=True)}
        lines = self._tell(new)
        for name, counts in new.items():
            kept = state.streams.setdefault(name, dict.fromkeys(COUNTS, 0))
            for key, value in counts.items():
                kept[key] = kept.get(key, 0) + value
            state.seen += counts[READ]
            state.faults += skipped(counts)
        self.counts = {name: dict.fromkeys(COUNTS, 0) for name in names}
        self.lines, self.slow = {}, {}
        self._stop_if_too_many(state, lines)

    def _tell(self, new: Mapping[str, Mapping[str, int]]) -> list[str]:
        """Log and list what is new on any rank; returns the faults of all of them, on every rank."""
        if not any(skipped(counts) or counts[SLOW] for counts in new.values()):
            return []  # every rank knows, so nobody waits for this one below
        told: list[tuple[list[str], dict[str, float]]] = gather_objects((list(self.lines), self.slow))
        lines = list(dict.fromkeys(line for lines, _ in told for line in lines))
        slow = {file: seconds for _, reads in told for file, seconds in reads.items()}
        if is_main():
            self._list([line for line in lines if line not in self._listed])
            self._warn_of_slow({file: seconds for file, seconds in slow.items() if file not in self._slow_files})
        return lines

    def _list(self, lines: list[str]) -> None:
        for line in lines[:SHOWN]:
            logger.warning("skipped: %s", line)
        if len(lines) > SHOWN:
            logger.warning("skipped: %d more, listed in %s", len(lines) - SHOWN, self.file)
        kept = lines[: LISTED - len(self._listed)]
        if kept:
            self._listed.update(kept)
            with self.file.open("a", encoding="utf-8") as file:  # only this rank writes, so no line gets into another
                file.writelines(f"{line}\n" for line in kept)

    def _warn_of_slow(self, reads: Mapping[str, float]) -> None:
        self._slow_files.update(reads)
        for file, seconds in list(reads.items())[:SHOWN]:
            logger.warning("slow storage: a read of %s took %.1f s", file, seconds)
        if len(reads) > SHOWN:
            logger.warning("slow storage: the same with %d more files", len(reads) - SHOWN)

    def _stop_if_too_many(self, state: TrainState, lines: Sequence[str]) -> None:
        if state.faults > self.limit * state.seen:
            causes = {key: sum(counts.get(key, 0) for counts in state.streams.values()) for key in FAULT_LABELS}
            raise self._too_many(state.faults, state.seen, "records", causes, lines)
        for name, counts in state.streams.items():
            if counts[READ] >= ENOUGH and skipped(counts) > self.limit * counts[READ]:
                own = [line for line in lines if line.startswith(f"{name}{SEPARATOR}")]
                raise self._too_many(skipped(counts), counts[READ], f"records of stream {name} alone", counts, own)

    def _too_many(self, faults: int, seen: int, what: str, causes: Mapping[str, int], lines: Sequence[str]) -> UserError:
        example = f"; for example {lines[0]}" if lines else ""
        named = ", ".join(f"{causes[key]} {label}" for key, label in FAULT_LABELS.items() if causes.get(key))
        return UserError(
            f"{faults} of {seen} {what} read so far are unusable{f' ({named})' if named else ''}, "
            f"more than engine.max_bad_share = {self.limit:g} allows{example}. All are listed in {self.file}."
        )


def skipped(counts: Mapping[str, int]) -> int:
    """Unusable records of a stream, all causes together."""
    return sum(counts.get(kind, 0) for kind in FAULT_LABELS)


def fault_numbers(state: TrainState) -> dict[str, float]:
    """What a line of metrics says of the faults so far: nothing where there are none."""
    numbers = {"skipped_records": float(state.faults)} if state.faults else {}
    for name, counts in state.streams.items():
        numbers |= {f"skipped/{name}": float(skipped(counts))} if skipped(counts) else {}
        numbers |= {f"slow_reads/{name}": float(counts[SLOW])} if counts.get(SLOW) else {}
    return numbers


def fault_table(state: TrainState) -> dict[str, dict[str, int]]:
    """For metrics.json: by stream the records read, the skipped ones by cause, and the slow reads."""
    return {name: {key: counts.get(key, 0) for key in COUNTS} for name, counts in state.streams.items()}


def _lines_of(file: Path) -> set[str]:
    """What an earlier start of the run has listed already; a line that a kill cut short is none."""
    try:
        content = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    if content and not content.endswith("\n"):
        with file.open("a", encoding="utf-8") as open_file:
            open_file.write("\n")
    return set(content.splitlines())
