"""Someone wants the machines back: SIGTERM or SIGUSR1 on any rank stops all ranks at the same point, with everything saved.

Between two steps the ranks agree by a tiny reduction that runs while the next step computes, so it costs no waiting and takes effect one
step later. Evaluation has no common steps: there a rank that got the signal posts a notice, everyone looks for it between batches, and the
next exchange of results tells those who had finished theirs.
"""

import signal
import threading
import time
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from common.distributed import gather_objects, world_size
from engine.board import Board

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
NOTICE = "interruption"
LOOK_EVERY = 0.5
"""Seconds between two looks at the board in evaluation."""


class Interrupted(Exception):
    """Raised out of an evaluation, on all ranks, when the run is to stop."""

    def __init__(self, known: bool) -> None:
        super().__init__()
        self.known = known
        """Whether the other ranks know that this one leaves."""


class Interruption:
    """Whether the run is to stop; made on all ranks together, on the main thread.

    Args:
        board: shared by all ranks.
        timeout: of the agreement between two steps; None: the library's own.
    """

    def __init__(self, board: Board, timeout: timedelta | None = None) -> None:
        self.board = board
        self.received = 0
        """Number of the signal that this rank got; 0: none."""
        self._group = dist.new_group(backend="gloo", timeout=timeout) if world_size() > 1 else None
        self._pending: tuple[dist.Work, Tensor] | None = None
        self._looked = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def listen(self) -> None:
        """Take the signals from now on; they only leave a mark, so whatever computes goes on. Python lets only the main thread take any."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._mark)

    def close(self) -> None:
        """Give the signals back; but a late SIGUSR1, whose default is to kill, must not undo a run that is finished."""
        for number, handler in self._before.items():
            signal.signal(number, (handler or signal.SIG_DFL) if number == signal.SIGTERM else signal.SIG_IGN)
        self._before.clear()

    def _mark(self, number: int, frame: FrameType | None) -> None:
        self.received = number

    def agreed(self) -> str | None:
        """At a step boundary: the name of a signal that some rank got by the boundary before, the same on all ranks; else None."""
        if self._group is None:
            return _name(self.received)
        found = 0
        if self._pending is not None:
            work, value = self._pending
            work.wait()
            found = int(value)
        value = torch.tensor(self.received)
        work = dist.all_reduce(value, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        assert work is not None, "an asynchronous reduction has a handle"
        self._pending = (work, value)
        return _name(found)

    def beat(self) -> None:
        """Between two batches of an evaluation.

        Raises:
            Interrupted: the run is to stop; this rank leaves first.
        """
        if self.received:
            self.board.post(NOTICE, str(self.received))
            raise Interrupted(known=False)
        now = time.monotonic()
        if self._group is not None and now - self._looked > LOOK_EVERY:
            self._looked = now
            if (notice := self.board.read(NOTICE)) is not None:
                self.received = int(notice)
                raise Interrupted(known=False)

    def gather(self, value: Any) -> list[Any]:
        """Exchange results of an evaluation: one object of every rank, in rank order, on every rank.

        Raises:
            Interrupted: on all ranks, when one of them has left its evaluation.
        """
        rows = gather_objects((0, value), self._group)
        self._heed(rows)
        return [found for _, found in rows]

    def leave(self) -> None:
        """Tell the others, in their next `gather`, that this rank left its evaluation."""
        self._heed(gather_objects((self.received, None), self._group), raising=False)

    def _heed(self, rows: list[tuple[int, Any]], raising: bool = True) -> None:
        signals = [number for number, _ in rows if number]
        if signals:
            self.received = signals[0]
            if raising:
                raise Interrupted(known=True)

    def name(self) -> str:
        """Of the signal that was received."""
        return _name(self.received) or "no signal"


def _name(number: int) -> str | None:
    return signal.Signals(number).name if number else None
