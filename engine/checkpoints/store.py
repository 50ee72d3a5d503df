"""The checkpoints of one run, as the training loop uses them."""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import Tensor

from engine.board import Board
from engine.checkpoints.layout import BEST, by_worth, prune, step_name, tidy
from engine.checkpoints.loading import Checkpoint, Loader
from engine.checkpoints.ranks import Patience, Ranks
from engine.checkpoints.space import in_words
from engine.checkpoints.state import TrainState
from engine.checkpoints.writing import Notices, Outcome, Share, write_checkpoint

logger = logging.getLogger(__name__)

WAIT_NOTICED, WAIT_LOGGED_EVERY = 1.0, 600.0
"""Seconds that training waits for the disk before that is said, and how often it is said."""


@dataclass(frozen=True)
class Limits:
    """How long the ranks wait, and how much room they leave."""

    answer: Patience = field(default_factory=lambda: Patience(600.0))
    """Of rank 0, for the other ranks to have written their files."""
    listing: Patience = field(default_factory=lambda: Patience(30.0))
    """For a shared file system to show what another machine wrote."""
    spare: int = 64 << 20
    """Bytes that stay free on the disk."""


class CheckpointStore:
    """Writes and reads the checkpoints of a run. Every rank has one and makes the same calls in the same order, on its main thread."""

    def __init__(
        self,
        folder: Path,
        keep: int,
        board: Board,
        ranks: Ranks | None = None,
        background: bool = True,
        limits: Limits | None = None,
    ) -> None:
        """Open the folder; rank 0 tidies up what killed writers left there.

        Args:
            folder: of all checkpoints, on a disk that all ranks share. It need not exist.
            keep: number of complete checkpoints that stay, at least 1.
            board: that all ranks see.
            ranks: this one and all; by default those of the process group.
            background: write beside the training; else `save` returns when all is written.
            limits: times and sizes.
        """
        self.folder = folder
        self.keep = max(keep, 1)
        self.board = board
        self.ranks = ranks or Ranks.present()
        self.background = background
        self.limits = limits or Limits()
        self.last_good: int | None = None
        """Step of the newest checkpoint that was written or loaded by this process."""
        self.waited = 0.0
        """Seconds that training spent waiting for a write to end."""
        self._loader = Loader(folder, self.ranks, self.limits.listing)
        self._number = 0
        self._thread: threading.Thread | None = None
        self._outcome: Outcome | None = None
        self._wait_logged = -WAIT_LOGGED_EVERY
        if self.ranks.rank == 0:
            tidy(folder)

    def save(self, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], state: TrainState) -> None:
        """Begin to write a checkpoint, when the write before it is over; then `latest` points to it and the oldest go.

        A failure is logged, by `poll`, and changes nothing else.

        Args:
            model: this rank's share of the tensors, on the CPU; nobody may write to them any more.
            optimizer: likewise.
            state: copied here; rank 0's is written.
        """
        self._start(Share(step_name(state.step), state.step, model, optimizer, asdict(state)))

    def save_best(self, model: Mapping[str, Tensor], state: TrainState) -> None:
        """Begin to write the weights that did best so far; see `save`."""
        self._start(Share(BEST, state.step, model, {}, asdict(state)))

    def poll(self) -> None:
        """Log how a write ended, once it has. Cheap; for every step boundary."""
        if self._thread is not None and not self._thread.is_alive():
            self._thread.join()
            self._thread = None
            self._report()

    def wait(self) -> None:
        """Wait until no write is under way, and log how it ended."""
        if self._thread is not None:
            self._thread.join()
        self.poll()

    def leave(self, seconds: float = 5.0) -> None:
        """Give a write that is under way a moment to end, before the process does: Python aborts where its threads still compute."""
        if self._thread is not None:
            self._thread.join(seconds)
        self.poll()

    def load_latest(self) -> Checkpoint | None:
        """The newest checkpoint that is good on all ranks, or None where there is none; together on all ranks.

        Raises:
            UserError: on all ranks, when there are checkpoints and none can be read, or when a newer version wrote one.
        """
        self.wait()
        checkpoint = self._loader.latest()
        if checkpoint is not None:
            self.last_good = checkpoint.state.step
        return checkpoint

    def load_best(self) -> Checkpoint | None:
        """The weights that did best on validation, or None; together on all ranks.

        Raises:
            UserError: on all ranks, when they cannot be read.
        """
        self.wait()
        return self._loader.best()

    def _start(self, share: Share) -> None:
        self._await_previous()
        self._number += 1
        if self.background:
            # a daemon, so that a process which must end does not wait for other ranks; what it leaves is tidied up at the next start
            self._thread = threading.Thread(target=self._write, args=(share,), name="checkpoint", daemon=True)
            self._thread.start()
        else:
            self._write(share)
            self._report()

    def _write(self, share: Share) -> None:
        self._outcome = Outcome(share.name, share.step, "the writer ended early")
        notices = Notices(self.board, self._number, self.ranks, self.limits.answer)
        outcome = write_checkpoint(self.folder, share, notices, self.limits.spare, self.limits.listing)
        self._outcome = outcome
        if self.ranks.rank == 0 and outcome.problem is None and share.name != BEST:
            self._loader.bad.discard(share.name)
            prune(self.folder, by_worth(self.folder, share.name, self._loader.bad)[self.keep :])

    def _await_previous(self) -> None:
        if self._thread is None:
            return
        name, begun = self._outcome.name if self._outcome is not None else "a checkpoint", time.monotonic()
        self.wait()
        waited = time.monotonic() - begun
        self.waited += waited
        if waited > WAIT_NOTICED and self.ranks.rank == 0 and time.monotonic() - self._wait_logged > WAIT_LOGGED_EVERY:
            self._wait_logged = time.monotonic()
            logger.warning(
                "training waited %.1f s for %s to be written (%.1f s so far); a larger engine.checkpoint_every, or a faster disk, helps",
                waited,
                name,
                self.waited,
            )

    def _report(self) -> None:
        """Say how a write ended."""
        outcome, self._outcome = self._outcome, None
        if outcome is None:
            return
        what = f"{'best weights' if outcome.name == BEST else 'checkpoint'} of step {outcome.step}"
        if outcome.problem is not None:
            good = f"the last good checkpoint is step {self.last_good}" if self.last_good is not None else "there is no good checkpoint yet"
            logger.warning("%s could not be written (%s); the run goes on, %s", what, outcome.problem, good)
            return
        if outcome.name != BEST:
            self.last_good = outcome.step
        if self.ranks.rank == 0:
            logger.info("%s written: %s in %.1f s", what, in_words(outcome.size), outcome.seconds)
