"""Several ranks played by threads of one process, with collectives that wait for all of them."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from engine.board import LocalBoard
from engine.checkpoints import CheckpointStore, Limits, Ranks, TrainState, shares
from engine.checkpoints.ranks import Patience

Result = TypeVar("Result")


class PlayedRanks:
    """As many ranks as there are threads."""

    def __init__(self, world: int) -> None:
        self.world = world
        self._values: list[Any] = [None] * world
        self._barrier = threading.Barrier(world, timeout=60)

    def gather(self, rank: int, value: Any) -> list[Any]:
        """All ranks' values."""
        self._values[rank] = value
        self._barrier.wait()
        values = list(self._values)
        self._barrier.wait()
        return values

    def ranks(self, rank: int) -> Ranks:
        """What a store of this rank is given."""
        return Ranks(rank, self.world, lambda value: self.gather(rank, value)[0], lambda value: self.gather(rank, value))

    def play(self, part: Callable[[int], Result]) -> list[Result]:
        """Let every rank do its part at once; what they return, in rank order. The first exception is raised here."""

        def guarded(rank: int) -> Result:
            threading.current_thread().name = f"rank-{rank}"
            try:
                return part(rank)
            except BaseException:
                self._barrier.abort()
                raise

        with ThreadPoolExecutor(self.world) as pool:
            return [future.result() for future in [pool.submit(guarded, rank) for rank in range(self.world)]]


def stores(played: PlayedRanks, folder: Path, limits: Limits | None = None) -> list[CheckpointStore]:
    """A store for each rank on one board."""
    board = LocalBoard()
    return [CheckpointStore(folder, 2, board, played.ranks(rank), limits=limits or quick()) for rank in range(played.world)]


def quick(answer: float = 60.0, listing: float = 60.0) -> Limits:
    """Limits for tests: deadlines in seconds, no room to spare."""
    return Limits(Patience(answer), Patience(listing), spare=0)


def tensors(step: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A model of some layers and its moments, all holding the step."""
    model = {f"layer{number}.weight": torch.full((3, number + 1), float(step)) for number in range(7)}
    moments = {f"{name}|exp_avg": tensor + 0.5 for name, tensor in model.items()}
    return model, moments | {"layer0.weight|step": torch.tensor(float(step))}


def save_all(ranks: list[CheckpointStore], step: int) -> None:
    """Let all ranks write a checkpoint, and wait until it is over."""
    for rank, store in enumerate(ranks):
        model, moments = (share_of(part, rank, len(ranks)) for part in tensors(step))
        store.save(model, moments, TrainState(step=step, world=len(ranks)))
    for store in ranks:
        store.wait()


def share_of(tensors: Mapping[str, Tensor], rank: int, world: int) -> dict[str, Tensor]:
    """A rank's share of tensors that every rank has whole."""
    mine = shares({name: tensor.nbytes for name, tensor in tensors.items()}, world)[rank]
    return {name: tensors[name].clone() for name in mine}
