"""What a loading process is doing at this moment, told to whoever watches it; and the reads that took too long.

Watching reaches from the loader down to the single read through context variables: sources, streams and samples between them need
not know of it. Where nobody watches, nothing is kept.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from multiprocessing import RawArray

HEAD = struct.Struct("=qdq")  # pid, start on the machine's monotonic clock, bytes of the text
TEXT = 488
"""Longest text in bytes; of a longer one the end is kept, which tells shards apart."""
SLOT = HEAD.size + TEXT


@dataclass(frozen=True)
class SlowRead:
    """A read that took much longer than it should."""

    file: str
    seconds: float


class Slot:
    """The place in shared memory where one process says what it is doing."""

    def __init__(self, memory: memoryview) -> None:
        self.memory = memory
        self.pid = os.getpid()
        self.what = ""
        self.since = 0.0

    def show(self, what: str, since: float) -> None:
        """Say what is being done since when."""
        self.what, self.since = what, since
        text = what.encode(errors="replace")[-TEXT:]
        self.memory[:] = HEAD.pack(self.pid, since, len(text)) + text.ljust(TEXT, b"\0")


_SLOT: ContextVar[Slot | None] = ContextVar("slot", default=None)
_SLOW: ContextVar[list[SlowRead] | None] = ContextVar("slow", default=None)


@contextmanager
def shown_in(slot: Slot | None) -> Iterator[None]:
    """What is done inside is shown in this slot."""
    token = _SLOT.set(slot)
    try:
        yield
    finally:
        if slot is not None:
            slot.show("", time.monotonic())
        _SLOT.reset(token)


class doing:
    """Show what is being done, as "preparing a batch of stream images" or "reading data/a.tar"; afterwards what was before.

    Args:
        what: is being done.
        file: that it is done to, named after `what`.
    """

    __slots__ = ("before", "file", "slot", "started", "what")

    def __init__(self, what: str, file: object = None) -> None:
        self.what = what
        self.file = file

    def __enter__(self) -> doing:
        self.slot = _SLOT.get()
        self.started = time.monotonic()
        if self.slot is not None:
            self.before = (self.slot.what, self.slot.since)
            self.slot.show(self.what if self.file is None else f"{self.what} {self.file}", self.started)
        return self

    def __exit__(self, *_: object) -> None:
        if self.slot is not None:
            self.slot.show(*self.before)

    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.started


@contextmanager
def noting_slow_reads() -> Iterator[list[SlowRead]]:
    """The list fills with the slow reads that happen inside."""
    noted: list[SlowRead] = []
    token = _SLOW.set(noted)
    try:
        yield noted
    finally:
        _SLOW.reset(token)


def note_slow_read(file: str, seconds: float) -> None:
    """Tell whoever notes slow reads of one."""
    noted = _SLOW.get()
    if noted is not None:
        noted.append(SlowRead(file, seconds))


class LoaderStatus:
    """What the loader's processes are doing, kept in memory that they share with the process that asks.

    Args:
        workers: processes of the loader; 0 where the training process loads by itself.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._memory = RawArray("B", SLOT * max(workers, 1))

    def slot(self, worker: int) -> Slot:
        """Where a worker says what it does; called in that worker."""
        return Slot(memoryview(self._memory).cast("B")[worker * SLOT : (worker + 1) * SLOT])

    def read(self, worker: int) -> tuple[int, str, float]:
        """Process id (0 before it began), what it does ("" while it waits for work), seconds since it began that."""
        raw = bytes(memoryview(self._memory).cast("B")[worker * SLOT : (worker + 1) * SLOT])
        pid, since, size = HEAD.unpack_from(raw)
        return pid, raw[HEAD.size : HEAD.size + size].decode(errors="replace"), time.monotonic() - since

    def of_process(self, pid: int) -> str:
        """What a process of the loader was last seen doing; "" where it was waiting or is none of them."""
        seen = [self.read(number) for number in range(max(self.workers, 1))]
        return next((what for found, what, _ in seen if found == pid), "")

    def describe(self) -> str:
        """One line on what the loader is doing: of its processes the one that is longest at one thing.

        For example "loader worker 1 (pid 77) has been reading data/images-000003.tar for 312 s".
        """
        seen = [(number, *self.read(number)) for number in range(max(self.workers, 1))]
        busy = [(seconds, number, pid, what) for number, pid, what, seconds in seen if what]
        if not busy:
            return "the loader is idle: its workers wait to be asked for batches" if self.workers else "the loader is idle"
        seconds, number, pid, what = max(busy)
        who = f"loader worker {number} (pid {pid})" if self.workers else f"the loader, in the training process (pid {pid}),"
        return f"{who} has been {what} for {seconds:.0f} s"
