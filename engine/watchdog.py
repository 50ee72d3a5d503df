"""Notices when a run hangs: says which rank holds the others up and where, leaves traces, and ends the process when waiting is hopeless.

Every rank has a thread that looks at what the main thread does every few seconds and posts it on the board. The main thread only writes
attributes, so that watching costs it nothing. On a GPU the main thread runs ahead of the device, up to the next time it reads a number
back: the last finished step is then the last one that was handed to the device.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from torch import nn

from engine.board import Board
from engine.config.engine_settings import EngineSettings
from engine.watchdog_heartbeat import Heartbeat, Phase, who_holds_up
from engine.watchdog_traces import EXIT_STALLED, bounded, dump_collectives, dump_stacks, end_process, leave_last_words, stacks_file

logger = logging.getLogger(__name__)
Item = TypeVar("Item")

START_FACTOR = 3
"""Until the first step is finished everything may take so many times longer: models are compiled and caches filled."""
MARGIN = 120.0
"""Seconds by which a collective's own time-out comes after the watchdog's, which says more."""
NEVER = timedelta(days=365)
"""A time-out for those who want none: without one torch takes ten minutes or thirty."""
STANDSTILL = 30.0
"""Seconds by which the thread wakes too late when the process itself was stopped: a suspended machine, a job that was paused."""
END, VERDICT = "watchdog/end", "watchdog/verdict"


@dataclass(frozen=True)
class Limits:
    """How long a rank may go without progress, in seconds; None: for ever."""

    warning: float | None
    timeout: float | None

    @classmethod
    def of(cls, settings: EngineSettings) -> "Limits":
        """As configured."""
        return cls(settings.stall_warning or None, settings.timeout or None)

    @property
    def shortest(self) -> float | None:
        """The first of them that would be reached."""
        return min((limit for limit in (self.warning, self.timeout) if limit is not None), default=None)

    @property
    def beat(self) -> float:
        """Seconds between two looks."""
        return min(5.0, (self.shortest or 80.0) / 16)

    @property
    def collective(self) -> timedelta:
        """Time-out of collectives. It takes over where no watchdog is left to end the run, so it comes after each of theirs."""
        return NEVER if self.timeout is None else timedelta(seconds=self.timeout * START_FACTOR + MARGIN)


class Watchdog:
    """Watches this rank, and the others with it.

    Args:
        board: where the ranks post their heartbeats.
        rank, world: this process and how many there are.
        limits: when to warn and when to end the process.
        logs: folder for stacks and last words.
        describe_loader: what the data loader is at, asked from the watching thread when data does not come.
        end: ends the process with an exit code.
        clock: seconds.
    """

    def __init__(
        self,
        board: Board,
        rank: int,
        world: int,
        limits: Limits,
        logs: Path,
        describe_loader: Callable[[], str] | None = None,
        end: Callable[[int], object] = end_process,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rank, self.world, self.limits, self.logs = rank, world, limits, logs
        self.describe_loader = describe_loader
        self.phase_now, self.step, self.marks = Phase.STARTING, 0, 0  # written by the main thread, read by the other
        self._board: Board | None = board
        self._end, self._clock = end, clock
        self._host, self._pid = socket.gethostname(), os.getpid()
        self._count = 0
        self._finished_any = False
        self._seen, self._since = -1, clock()
        self._next_warning = 0.0
        self._heard: dict[int, tuple[Heartbeat | None, float]] = {}
        self._last_words, self._ends_at = "", None

    # -- what the main thread says

    def enter(self, phase: Phase) -> None:
        """The main thread begins something else."""
        self.phase_now = phase
        self.marks += 1

    def progress(self) -> None:
        """The main thread comes on in what it is at: a batch of an evaluation is done."""
        self.marks += 1

    def finished(self, step: int) -> None:
        """A training step is done."""
        self.step = step
        self._finished_any = True
        self.marks += 1

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """What happens inside belongs to this phase; then the one before goes on."""
        before = self.phase_now
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    @contextmanager
    def evaluating(self, model: nn.Module) -> Iterator[None]:
        """An evaluation: it may take as long as it likes while the parts of the model are being called."""
        hooks = [part.register_forward_hook(lambda *_: self.progress()) for part in model.children()]
        try:
            with self.phase(Phase.EVALUATING):
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def watched(self, batches: Iterator[Item]) -> Iterator[Item]:
        """The same batches; while the next one is not there the rank waits for data, and after that it trains."""
        while True:
            self.enter(Phase.LOADING)
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.enter(Phase.TRAINING)
            yield batch

    # -- what the thread does

    @contextmanager
    def watching(self, step: int) -> Iterator[None]:
        """Watch while this lasts; nothing is watched before or after.

        Args:
            step: the last finished one.
        """
        if self.limits.shortest is None:
            yield
            return
        self.step = step
        self.enter(Phase.STARTING)
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(stop,), name="watchdog", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(5.0)  # no longer: it may wait for a board that does not answer

    def _run(self, stop: threading.Event) -> None:
        self.look()
        slept = self._clock()
        while not stop.wait(self.limits.beat):
            self._excuse_standstill(self._clock() - slept)
            if not stop.is_set():
                self.look()
            slept = self._clock()
        self.enter(Phase.LEFT)
        self._post(0.0)

    def look(self) -> None:
        """Post a heartbeat and judge the time since the last progress. The thread calls it every `limits.beat` seconds."""
        now = self._clock()
        if self.marks != self._seen:
            self._seen, self._since, self._next_warning = self.marks, now, self._patience(self.limits.warning)
            self._heard.clear()
        idle = now - self._since
        mine = self._post(idle)
        if self._ends_at is not None:
            if now >= self._ends_at:
                bounded(self._leave_last_words, self._grace)
                self._end(EXIT_STALLED)
            return
        suspicious = idle >= (self.limits.shortest or idle) / 4
        if self.world > 1 and suspicious:
            self._listen(now)
        timed_out = self.limits.timeout is not None and idle >= self._patience(self.limits.timeout)
        if timed_out or (suspicious and self._read(END) is not None):
            self._announce_end(mine, now)
        elif self.limits.warning is not None and idle >= self._next_warning:
            self._next_warning = max(self._next_warning, idle) * 2
            naming = self._naming(mine, now)
            bounded(lambda: self._warn(mine, naming), self._grace)

    def _patience(self, limit: float | None) -> float:
        return (limit or 0.0) * (1 if self._finished_any else START_FACTOR)

    @property
    def _grace(self) -> float:
        """Between the first rank's last words and the ends of all: every rank leaves its traces before one that ends takes it down."""
        return 3 * self.limits.beat

    def _excuse_standstill(self, slept: float) -> None:
        late = slept - self.limits.beat
        if late > max(STANDSTILL, 10 * self.limits.beat):
            logger.warning("rank %d stood still for %.0f s as a whole (process stopped, or machine suspended)", self.rank, late)
            self._since += late
            self._heard.clear()

    def _warn(self, mine: Heartbeat, naming: str) -> None:
        stacks = stacks_file(self.logs, self.rank)
        logger.warning("no progress: %s, %s; stacks are in %s", mine.name(), mine.standing(), stacks)
        if naming:
            logger.warning("%s", naming)
        dump_stacks(self.logs, self.rank, mine.standing())

    def _announce_end(self, mine: Heartbeat, now: float) -> None:
        """From here on there is no way back: the other ranks see the notice and end too."""
        naming = self._naming(mine, now)
        self._last_words = f"stalled, ending with exit code {EXIT_STALLED}: {naming or f'{mine.name()}, {mine.standing()}'}"
        self._put(END, self._last_words)
        if naming:
            self._put(VERDICT, self._last_words)
        self._ends_at = now + self._grace
        bounded(self._leave_traces, self._grace)

    def _leave_traces(self) -> None:
        logger.error("%s", self._last_words)
        leave_last_words(self.logs, self.rank, self._last_words)
        dump_stacks(self.logs, self.rank, self._last_words)
        dump_collectives(self.logs, self.rank)

    def _leave_last_words(self) -> None:
        leave_last_words(self.logs, self.rank, self._read(VERDICT) or self._last_words)

    # -- the board

    def _post(self, idle: float) -> Heartbeat:
        self._count += 1
        phase = self.phase_now
        loader = self._ask_loader() if phase is Phase.LOADING and idle >= (self.limits.shortest or idle) / 4 else ""
        mine = Heartbeat(self.rank, self._count, self.step, phase, round(idle, 1), self._host, self._pid, loader)
        if self.world > 1:
            self._put(_key(self.rank), mine.to_text())
        return mine

    def _ask_loader(self) -> str:
        if self.describe_loader is None:
            return ""
        try:
            return self.describe_loader()
        except Exception as error:  # whatever the loader's state is by now, watching goes on
            return f"its state cannot be told: {error}"

    def _listen(self, now: float) -> None:
        """Read heartbeats: of all ranks if it is this one's part to speak, else of those before it until one is seen to be alive."""
        for rank in range(self.world):
            if rank == self.rank:
                continue
            text = self._read(_key(rank))
            beat = None if text is None else Heartbeat.from_text(text)
            before, since = self._heard.get(rank, (None, now))
            moved = beat is not None and before is not None and beat.count != before.count
            self._heard[rank] = (beat, now if moved or (before is None and beat is not None) else since)
            if rank < self.rank and beat is not None and (moved or before is None):  # one seen for the first time may be alive
                return

    def _silent(self, rank: int, now: float) -> bool:
        beat, since = self._heard[rank]
        enough = max((self.limits.shortest or 0.0) / 2, 4 * self.limits.beat)
        return now - since >= enough and (beat is None or beat.phase is not Phase.LEFT)

    def _naming(self, mine: Heartbeat, now: float) -> str:
        """Who holds the others up; "" where it is not this rank's part to say: the first rank that gives signs of life speaks for all."""
        if self._board is None or self.world == 1:
            return ""
        if any(rank not in self._heard or not self._silent(rank, now) for rank in range(self.rank)):
            return ""
        silent = {rank: now - since for rank, (_, since) in self._heard.items() if self._silent(rank, now)}
        heard = {rank: beat for rank, (beat, _) in self._heard.items() if beat is not None}
        return who_holds_up(heard | {self.rank: mine}, silent, self.world)

    def _put(self, key: str, text: str) -> None:
        if self._board is not None:
            try:
                self._board.post(key, text)
            except RuntimeError as error:
                self._lose_board(error)

    def _read(self, key: str) -> str | None:
        if self._board is not None:
            try:
                return self._board.read(key)
            except RuntimeError as error:
                self._lose_board(error)
        return None

    def _lose_board(self, error: RuntimeError) -> None:
        """A connection that failed once may answer the next question with the last one's answer: it is not used again."""
        self._board = None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        logger.warning("rank %d cannot reach the other ranks' heartbeats any more, and watches itself alone: %s", self.rank, reason)


def _key(rank: int) -> str:
    return f"watchdog/{rank}"
