"""How the files of a data set are read: with patience when storage fails, in view of whoever watches, remote ones through a cache."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from common.errors import UserError
from dataset.activity import doing, note_slow_read
from dataset.config import StorageSettings
from dataset.remote import DataFile, RemoteFile, measured, reason
from dataset.shard_cache import ShardCache

T = TypeVar("T")
U = TypeVar("U")

SLOW_RATE = 10e6
"""Bytes a second that any storage should give: a read is slow when it takes `storage.slow_seconds` longer than at this rate."""
CONNECTIONS = 16
"""Questions to a remote file system under way at a time, when a source of many files is opened."""


class ChangedFile(OSError):
    """A file is not any more what it was when it was opened first."""


CERTAIN = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ChangedFile)
"""Errors that trying again does not change."""


class Storage:
    """Where and how files are read; the same in all processes, and holding nothing that changes.

    Args:
        settings: None: the defaults.
    """

    def __init__(self, settings: StorageSettings | None = None) -> None:
        self.settings = settings or StorageSettings()
        self.cache = ShardCache(cache_folder(self.settings.cache), int(self.settings.cache_gb * 1e9))

    def patiently(self, call: Callable[[], T], tries: int | None = None) -> T:
        """Call, and call again after a while (twice as long each time) when storage fails.

        Args:
            call: may raise OSError.
            tries: None: as configured.

        Raises:
            OSError: of the last try, or one that trying again does not change.
        """
        tries = tries or self.settings.tries
        for attempt in range(tries):
            try:
                return call()
            except CERTAIN:
                raise
            except OSError:
                if attempt == tries - 1:
                    raise
            time.sleep(self.settings.retry_wait * 2**attempt)
        raise AssertionError("there is at least one try")

    def watched(self, file: DataFile, size: int) -> _WatchedRead:
        """A context in which a file is shown as being read, and noted if that takes too long for `size` bytes."""
        return _WatchedRead(file, self.settings.slow_seconds + size / SLOW_RATE)

    def open(self, file: DataFile) -> int:
        """A descriptor of the file, or of its local copy.

        Raises:
            OSError: it cannot be opened or fetched.
            UserError: it does not fit into the cache.
        """
        with self.watched(file, file.size or 0 if isinstance(file, RemoteFile) else 0):
            return self.cache.open(file) if isinstance(file, RemoteFile) else os.open(file, os.O_RDONLY)

    def read_whole(self, path: Path) -> bytes:
        """The content of a small local file, such as one image. Raises OSError."""
        with self.watched(path, 0):
            return self.patiently(path.read_bytes)

    def measure(self, files: Sequence[DataFile]) -> list[DataFile]:
        """The files, remote ones with their size.

        Raises:
            UserError: a remote one does not exist, cannot be reached, or is larger than the cache.
        """
        return self.each(self._measured, files)

    def _measured(self, file: DataFile) -> DataFile:
        if not isinstance(file, RemoteFile):
            return file
        with telling(file):
            known = self.patiently(lambda: measured(file)) if file.size is None else file
        self.cache.check_fits(known)
        return known

    def each(self, call: Callable[[DataFile], U], files: Sequence[DataFile]) -> list[U]:
        """Call with every file, with several at a time where some are remote."""
        if not any(isinstance(file, RemoteFile) for file in files):
            return [call(file) for file in files]
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            return list(pool.map(call, files))


class _WatchedRead(doing):
    """See `Storage.watched`."""

    __slots__ = ("limit",)

    def __init__(self, file: DataFile, limit: float) -> None:
        super().__init__("reading", file)
        self.limit = limit

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        if self.seconds() > self.limit:
            note_slow_read(str(self.file), self.seconds())


@contextmanager
def telling(file: DataFile) -> Iterator[None]:
    """Turn an OSError about a file into a UserError that names it: before training there is no going on without it."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{file}: missing (no such file); restore it or take it out of the data list") from error
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({reason(error)})") from error


def cache_folder(configured: str | None) -> Path:
    """The folder of the cache: the configured one, or one in the user's cache folder."""
    if configured is not None:
        return Path(configured).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "multigrain" / "shards"
