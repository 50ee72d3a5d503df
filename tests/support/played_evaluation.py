"""An evaluation shared among ranks that are threads of one process."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from engine.board import LocalBoard
from engine.evaluators import base, labelled, retrieval
from engine.interruption import Interruption
from played_ranks import PlayedRanks

Result = TypeVar("Result")


class PlayedInterruption(Interruption):
    """Exchanges results with ranks that are threads."""

    def __init__(self, exchange: Callable[[Any], list[Any]]) -> None:
        super().__init__(LocalBoard())
        self.exchange = exchange

    def gather(self, value: Any) -> list[Any]:
        """See `Interruption`."""
        return self.exchange(value)


def play_evaluation(world: int, monkeypatch: pytest.MonkeyPatch, part: Callable[[Interruption], Result]) -> list[Result]:
    """Let every rank of a world evaluate with its own interruption; what they return, in rank order."""
    local, played = threading.local(), PlayedRanks(world)
    for module in (base, retrieval):
        monkeypatch.setattr(module, "rank", lambda: local.rank)
        monkeypatch.setattr(module, "world_size", lambda: world)
    monkeypatch.setattr(labelled, "is_main", lambda: local.rank == 0)

    def mine(rank: int) -> Result:
        local.rank = rank
        return part(PlayedInterruption(lambda value: played.gather(rank, value)))

    return played.play(mine)
