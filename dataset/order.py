"""The order of records: a pure function of seed and global position, with no state to save.

Position g of a stream lies in epoch g // n. In each epoch blocks of consecutive records are permuted, then the records inside a
window of several such blocks: reads stay near each other on disk, and every record comes exactly once. A run that stops at any
step, on any number of processes, continues in the same order because the order never depended on either.

Only raw Philox output is used (not `Generator.permutation`), whose values NumPy promises never to change.
"""

import hashlib
from collections import OrderedDict
from functools import lru_cache

import numpy as np

BLOCK = 1024
WINDOW = 8
_CACHED_WINDOWS = 4


class EpochOrder:
    """The order of `n` records in every epoch.

    Memory: one permutation of the n / block blocks and a few windows of block * window records.

    Args:
        n: number of records, at least 1.
        seed: orders of different seeds are independent.
        block: consecutive records that stay near each other.
        window: blocks whose records are mixed.
    """

    def __init__(self, n: int, seed: int, block: int = BLOCK, window: int = WINDOW) -> None:
        if n < 1 or block < 1 or window < 1:
            raise ValueError(f"an order needs at least one record, block and window: n={n}, block={block}, window={window}")
        self.n = n
        self.seed = seed
        self.block = block
        self.window = window
        self._blocks: tuple[int, np.ndarray, int] | None = None
        self._windows: OrderedDict[tuple[int, int], tuple[int, np.ndarray]] = OrderedDict()

    def index(self, position: int, epoch: int) -> int:
        """Number of the record at a position (in range(n)) of an epoch."""
        if not 0 <= position < self.n:
            raise IndexError(f"position {position} of {self.n}")
        blocks, short_window = self._epoch(epoch)
        size = self.block * self.window
        missing = len(blocks) * self.block - self.n  # by which the last block is short, wherever it was permuted to
        window = position // size
        if window > short_window or position >= (short_window + 1) * size - missing:
            window = (position + missing) // size
        start, records = self._window(epoch, window, blocks, missing if window > short_window else 0)
        return int(records[position - start])

    def _epoch(self, epoch: int) -> tuple[np.ndarray, int]:
        """The epoch's order of blocks, and the number of the window that holds the short last block."""
        if self._blocks is None or self._blocks[0] != epoch:
            blocks = _permutation(-(-self.n // self.block), self.seed, epoch, 0)
            short = int(np.flatnonzero(blocks == len(blocks) - 1)[0]) // self.window
            self._blocks = (epoch, blocks, short)
        return self._blocks[1], self._blocks[2]

    def _window(self, epoch: int, window: int, blocks: np.ndarray, missing: int) -> tuple[int, np.ndarray]:
        """Position of a window's first record, and the window's records in order."""
        found = self._windows.pop((epoch, window), None)
        if found is None:
            chosen = blocks[window * self.window : (window + 1) * self.window]
            records = (chosen[:, None] * self.block + np.arange(self.block)).reshape(-1)
            records = records[records < self.n]
            records = records[_permutation(len(records), self.seed, epoch, window + 1)]
            found = (window * self.window * self.block - missing, records)
        self._windows[epoch, window] = found
        while len(self._windows) > _CACHED_WINDOWS:
            self._windows.popitem(last=False)
        return found


def record_index(position: int, n: int, seed: int, epoch: int, block: int = BLOCK, window: int = WINDOW) -> int:
    """Number of the record at a position of an epoch; for one seed and epoch a bijection of range(n).

    Args:
        position: in range(n).
        n: number of records.
        seed, epoch: choose the order.
        block: consecutive records that stay near each other.
        window: blocks whose records are mixed.
    """
    return _order(n, seed, block, window).index(position, epoch)


def sample_rng(seed: int, stream_name: str, global_index: int) -> np.random.Generator:
    """The random numbers of one sample: its augmentation, masking and choices.

    Args:
        seed: of the run.
        stream_name: names the stream, so that samples of two streams differ.
        global_index: position of the sample in the stream over all epochs, so that epochs differ.

    Returns:
        A generator that is the same in every process and for every number of processes and workers.
    """
    key = int.from_bytes(_digest(seed, stream_name)[:16], "little")
    # the counter's upper words number the samples: 2**128 blocks of numbers each, which never meet
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, global_index, 0]))


@lru_cache(maxsize=16)
def _order(n: int, seed: int, block: int, window: int) -> EpochOrder:
    return EpochOrder(n, seed, block, window)


@lru_cache(maxsize=64)
def _digest(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()


def _permutation(size: int, seed: int, epoch: int, part: int) -> np.ndarray:
    """A permutation of range(size), the order that sorts raw random words. Part 0 is for the epoch's blocks, w + 1 for window w."""
    key = int.from_bytes(_digest(seed, "order")[:16], "little")
    words = np.random.Philox(key=key, counter=[0, 0, epoch, part]).random_raw(size)
    return np.argsort(words, kind="stable")
