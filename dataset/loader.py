"""Batches prepared in the background by worker processes."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from common.errors import UserError
from dataset.batches import StreamBatch

Batch = dict[str, StreamBatch]


def batch_loader(dataset: Dataset[Batch], first: int, last: int, workers: int) -> Iterator[Batch]:
    """Items first .. last - 1 of the dataset, in order; the same for any number of workers.

    Args:
        dataset: `MixedBatches`.
        first, last: micro-steps.
        workers: processes that prepare batches ahead; 0 prepares each when it is asked for.

    Raises:
        UserError: as the dataset raised it, its message unchanged by the way through a worker.
    """
    loader: DataLoader[Batch | UserError] = DataLoader(
        _ErrorsAsItems(dataset),
        batch_size=None,
        sampler=range(first, last),
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_quiet_worker,
        generator=torch.Generator(),  # starting the loader must not draw from the numbers that seed dropout
    )
    for item in loader:
        if isinstance(item, UserError):
            raise item
        yield item


class _ErrorsAsItems(Dataset["Batch | UserError"]):
    """Hands a UserError over as an item: raised in a worker it would arrive wrapped in that worker's traceback."""

    def __init__(self, dataset: Dataset[Batch]) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> Batch | UserError:
        try:
            return self.dataset[index]
        except UserError as error:
            return error


def _quiet_worker(worker: int) -> None:
    """Workers are the parallelism; threads inside them would fight for the same cores."""
    cv2.setNumThreads(0)
