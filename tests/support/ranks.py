"""Several ranks over gloo, each a process of its own, for tests of what ranks do together."""

import tempfile
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

WAIT = timedelta(seconds=180)


def run_ranks(function: Callable[[], None], worlds: Iterable[int]) -> None:
    """Call a function on every rank of a world of each size, one world after another; what one raises fails the test.

    The processes are forked once, for the largest world.
    """
    sizes = list(worlds)
    with tempfile.TemporaryDirectory() as folder:
        start_processes(_rank, (function, sizes, Path(folder)), nprocs=max(sizes), start_method="fork")


def _rank(rank: int, function: Callable[[], None], worlds: list[int], folder: Path) -> None:
    torch.set_num_threads(1)
    for world in worlds:
        if rank < world:
            store = f"file://{folder / str(world)}"
            dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world, timeout=WAIT)
            function()
            dist.destroy_process_group()
