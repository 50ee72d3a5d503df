"""Who writes and reads checkpoints, and how long they wait for one another."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from common.distributed import broadcast_object, gather_objects, rank, world_size

Found = TypeVar("Found")
SHORTEST, LONGEST, GROWTH = 0.01, 1.0, 1.5
"""Pauses between two questions, in seconds, and how they grow."""


@dataclass(frozen=True)
class Ranks:
    """This rank among all of them. The collectives are for loading alone, which happens on the main thread of all ranks together."""

    rank: int
    world: int
    broadcast: Callable[[Any], Any] = broadcast_object
    """Rank 0's value, on every rank."""
    gather: Callable[[Any], list[Any]] = gather_objects
    """One value of every rank, in rank order, on every rank."""

    @classmethod
    def present(cls) -> "Ranks":
        """Those of the process group; one where there is none."""
        return cls(rank(), world_size())


@dataclass(frozen=True)
class Patience:
    """How long to ask again for what is not there yet."""

    seconds: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def until(self, ask: Callable[[], Found | None]) -> Found | None:
        """Ask, with growing pauses, until there is an answer that is not None; None when the time is over."""
        deadline, pause = self.clock() + self.seconds, SHORTEST
        while (found := ask()) is None:
            left = deadline - self.clock()
            if left <= 0:
                return None
            self.sleep(min(pause, left))
            pause = min(pause * GROWTH, LONGEST)
        return found
