"""Batches prepared in the background by worker processes."""

from __future__ import annotations

import atexit
import multiprocessing
import signal
from collections.abc import Generator, Iterator
from functools import partial
from multiprocessing.process import BaseProcess

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from common.errors import UserError
from dataset.activity import LoaderStatus, shown_in
from dataset.batches import MixedBatches, StreamBatch

Batch = dict[str, StreamBatch]


class LoaderKilled(UserError):
    """A loader process ended by force. Nothing is wrong with the input, so the exit code is that of a crash: starting again may help."""

    exit_code = 1


def batch_loader(
    dataset: MixedBatches, first: int, last: int, workers: int, status: LoaderStatus | None = None
) -> Generator[Batch, None, None]:
    """Items first .. last - 1 of the dataset, in order; the same for any number of workers.

    Args:
        dataset: the micro-batches of this rank.
        first, last: micro-steps.
        workers: processes that prepare batches ahead; 0 prepares each when it is asked for.
        status: shows what they are doing; made for as many workers.

    Raises:
        UserError: as the dataset raised it, its message unchanged by the way through a worker.
        LoaderKilled: a worker was killed, which is noticed within seconds of waiting for its next batch.
    """
    status = status or LoaderStatus(workers)
    loader: DataLoader[Batch | UserError] = DataLoader(
        _ErrorsAsItems(dataset, status),
        batch_size=None,
        sampler=range(first, last),
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_quiet_worker,
        generator=torch.Generator(),  # starting the loader must not draw from the numbers that seed dropout
    )
    if workers == 0:
        items, processes = iter(loader), []
    else:
        items, processes = _started(loader)
    ending = partial(_kill, processes)
    atexit.register(ending)
    try:
        for item in items:
            if isinstance(item, UserError):
                raise item
            yield item
    except RuntimeError as error:
        ended = [process for process in processes if process.exitcode is not None]
        if not ended:
            raise
        raise LoaderKilled(_how_it_ended(ended[0], dataset.rank, status)) from error
    finally:
        atexit.unregister(ending)
        ending()


def _started(loader: DataLoader[Batch | UserError]) -> tuple[Iterator[Batch | UserError], list[BaseProcess]]:
    """Start the workers. Their death is to be found by whoever waits for a batch, not raised in the middle of anything else.

    PyTorch's own handler of SIGCHLD would do the latter, so the one that was there before is put back.
    """
    before = set(multiprocessing.active_children())
    handler = signal.getsignal(signal.SIGCHLD)
    items = iter(loader)
    if handler is not None and signal.getsignal(signal.SIGCHLD) is not handler:
        signal.signal(signal.SIGCHLD, handler)
    return items, [process for process in multiprocessing.active_children() if process not in before]


def _kill(processes: list[BaseProcess]) -> None:
    """End workers that are no longer needed. Python would send them SIGTERM, which they do not take, and then wait for them."""
    for process in processes:
        process.kill()


def _how_it_ended(process: BaseProcess, rank: int, status: LoaderStatus) -> str:
    """One line on a worker that ended before its work was done."""
    code = process.exitcode or 0
    killed = code == -signal.SIGKILL
    how = f"was killed (signal {-code}{'; out of memory?' if killed else ''})" if code < 0 else f"ended with exit code {code}"
    what = status.of_process(process.pid or 0)
    doing = f" while {what}" if what else ""
    advice = "Give the machine more memory or set engine.workers lower, and" if killed else "Then"
    who = f"a loader process of rank {rank} (pid {process.pid})"
    return f"{who} {how}{doing}. {advice} start the run again: it goes on from its last checkpoint."


class _ErrorsAsItems(Dataset["Batch | UserError"]):
    """Hands a UserError over as an item: raised in a worker it would arrive wrapped in that worker's traceback."""

    def __init__(self, dataset: MixedBatches, status: LoaderStatus) -> None:
        self.dataset = dataset
        self.status = status

    def __getitem__(self, index: int) -> Batch | UserError:
        worker = get_worker_info()
        with shown_in(self.status.slot(worker.id if worker is not None else 0)):
            try:
                return self.dataset[index]
            except UserError as error:
                return error


def _quiet_worker(worker: int) -> None:
    """Workers are the parallelism; threads inside them would fight for the same cores.

    A scheduler that wants the machine back signals every process. The training process must still save, and for that its loader must
    live; workers end with it.
    """
    cv2.setNumThreads(0)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
