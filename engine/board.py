"""A notice board that all ranks of a run see: short texts under keys, posted and read without anyone waiting for anyone.

It is for what cannot be a collective, because ranks come to it at different times or not at all: signs of life, a signal that one rank
received, the end of a write in the background. Calls are safe from any thread.
"""

import os
from datetime import timedelta
from typing import Protocol

import torch.distributed as dist

from common.distributed import world_size

TIMEOUT = timedelta(seconds=60)
"""How long a call may take before it fails: the rank that keeps the board is gone, or its network is."""


class Board(Protocol):
    """Where notices are posted."""

    def post(self, key: str, text: str) -> None:
        """Put a notice up, or replace it."""
        ...

    def read(self, key: str) -> str | None:
        """The notice, or None where nobody has posted it; never waits for one."""
        ...


class LocalBoard:
    """The board of a single process."""

    def __init__(self) -> None:
        self._notices: dict[str, str] = {}

    def post(self, key: str, text: str) -> None:
        """See `Board`."""
        self._notices[key] = text

    def read(self, key: str) -> str | None:
        """See `Board`."""
        return self._notices.get(key)


class StoreBoard:
    """The board of several processes, kept by the store that the process group met at, over a connection of its own.

    Raises (all methods):
        RuntimeError: the store does not answer (`torch.distributed.DistError` is one).
    """

    def __init__(self, host: str, port: int, prefix: str) -> None:
        client = dist.TCPStore(host, port, is_master=False, timeout=TIMEOUT, wait_for_workers=False)  # pyright: ignore[reportPrivateImportUsage]
        self._store = dist.PrefixStore(prefix, client)  # pyright: ignore[reportPrivateImportUsage]

    def post(self, key: str, text: str) -> None:
        """See `Board`."""
        self._store.set(key, text)

    def read(self, key: str) -> str | None:
        """See `Board`."""
        return self._store.get(key).decode() if self._store.check([key]) else None


def open_board() -> Board:
    """The board of this run's present attempt; call it when the process group is up, on every rank."""
    if world_size() == 1:
        return LocalBoard()
    # a restarted attempt meets at the same store: notices of the one before must not be read
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return StoreBoard(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), f"multigrain/{attempt}")
