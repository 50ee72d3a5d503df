"""How a launcher stops: SIGTERM and SIGUSR1 are handed to its processes, which save and end by themselves."""

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import FrameType
from typing import Any

from torch.distributed.elastic.multiprocessing import SignalException

from engine.launch.outcome import say

FORWARDED = (signal.SIGTERM, signal.SIGUSR1)
AGENTS = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""What torch's agent goes on handling: it ends the processes with the same signal."""

TOGETHER = 3.0
"""Seconds within which several SIGTERM are one: SLURM sends two in a row at a job's end, and a `kill` may reach a process twice."""


class Stopped(Exception):
    """The launcher was asked to stop while no process of its ran: there is nothing to save."""


class StopRequests:
    """Handles the signals of a launcher while it is entered. A second SIGTERM, or `grace` seconds, end the processes at once.

    Args:
        grace: seconds that the processes have, from the first request on.
    """

    def __init__(self, grace: float) -> None:
        self.grace = grace
        self.requested: signal.Signals | None = None
        self.idle = False
        """Set where no process runs and the launcher waits for something else, such as other nodes."""
        self.pids: Callable[[], Iterable[int]] = tuple
        self._terms, self._last_term = 0, -math.inf
        self._expired = False
        self._timer: threading.Timer | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequests":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in (*FORWARDED, *AGENTS)}
            for number in FORWARDED:
                signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Refuse to start processes after a request.

        Raises:
            Stopped: there was one.
        """
        if self.requested is not None:
            raise Stopped

    def forward(self) -> None:
        """Hand the request to all processes, again where they have it: they may have started since."""
        if self.requested is not None:
            for pid in self.pids():
                with suppress(ProcessLookupError):
                    os.kill(pid, self.requested)  # not its group: a loader's processes are its own affair

    def _handle(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if number == signal.SIGTERM and now - self._last_term > TOGETHER:
            self._terms, self._last_term = self._terms + 1, now
        if self._expired or self._terms > 1:
            self._end_hard()
        if self.requested is None:
            self._timer = threading.Timer(self.grace, self._expire)
            self._timer.daemon = True
            self._timer.start()
        self.requested = signal.Signals(number)
        if self.idle:
            raise Stopped
        ends = f"SIGTERM once more, after {TOGETHER:g} s, ends them at once"
        say(f"{self.requested.name}: the processes save and stop, within {self.grace:g} s; {ends}.")
        self.forward()

    def _expire(self) -> None:
        self._expired = True
        os.kill(os.getpid(), signal.SIGTERM)  # the main thread has to act on it

    def _end_hard(self) -> None:
        say(f"The processes are ended: {f'{self.grace:g} s are over' if self._expired else 'a second SIGTERM'}.")
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # each leads a session of its own
        raise SignalException("ended", signal.SIGTERM)
