"""Local copies of remote files, shared by all processes of a machine and bounded in size.

FOLDER/data/     whole copies; the least recently used goes first when room is needed
FOLDER/indexes/  what the readers know of each file: small, and kept when its copy goes
FOLDER/locks/    one empty file for each of them, locked while it is being fetched

A copy appears under its name when it is complete, so a killed process leaves no half file; a reader that has one open keeps it to the
end even when it is removed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.errors import UserError
from common.files import flush
from dataset.activity import doing
from dataset.remote import RemoteFile, download

PARTIAL = ".partial"
WAIT = 0.1
"""Seconds between two looks for room, where all of it is taken by files that others are fetching."""


class ShardCache:
    """The cache of a machine; every process makes its own object of the same folder.

    Args:
        folder: made when it is first used.
        limit: bytes that copies may take. What a reader still has open after its removal comes on top, until the reader opens another.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self.data, self.indexes, self.locks = folder / "data", folder / "indexes", folder / "locks"

    def open(self, file: RemoteFile) -> int:
        """A descriptor of the local copy, fetched first where there is none (by one process, while others wait for it).

        Raises:
            UserError: the file is larger than the cache, or the folder cannot be made.
            OSError: it cannot be fetched; nothing is left of it.
        """
        copy = self.data / _key(file)
        descriptor = _open_whole(copy, file.size)
        if descriptor is not None:
            return descriptor
        self.check_fits(file)
        self._make_folders()
        with doing(f"waiting for another process to fetch {file}"), self.locked(copy.name):
            descriptor = _open_whole(copy, file.size)
            return self._fetch(file, copy) if descriptor is None else descriptor

    def check_fits(self, file: RemoteFile) -> None:
        """Raises UserError for a file that is larger than the whole cache."""
        if file.size is not None and file.size > self.limit:
            raise UserError(
                f"{file}: has {file.size / 1e9:.3g} GB, more than storage.cache_gb = {self.limit / 1e9:.3g} allows for all files together; "
                "set it to several times the size of the largest shard"
            )

    def index(self, file: RemoteFile, ending: str) -> Path:
        """Where an index of this version of a file is kept."""
        self._make_folders()
        return self.indexes / f"{_key(file)}{ending}"

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Be the only one, among the threads and processes of the machine, in a block of this name."""
        descriptor = os.open(self.locks / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def used(self) -> int:
        """Bytes that copies take, those under way counted whole."""
        return sum(size for _, size, _ in self._copies())

    def _fetch(self, file: RemoteFile, copy: Path) -> int:
        partial = self._reserve(file, copy)
        try:
            with doing(f"fetching {file}"):
                download(file, partial)
            descriptor = _open_whole(partial, file.size)
            if descriptor is None:
                came = partial.stat().st_size
                raise OSError(errno.EIO, f"{came:,} bytes came where {file.size:,} were announced")
            flush(partial)
            os.replace(partial, copy)
        finally:
            partial.unlink(missing_ok=True)
        if file.size is None:
            self._make_room_for_unknown(file, copy)
        return descriptor

    def _reserve(self, file: RemoteFile, copy: Path) -> Path:
        """Make room and claim it: the name of the unfinished copy says how much it will take."""
        need = file.size or 0
        partial = copy.with_name(f"{copy.name}.{need}{PARTIAL}")
        for remains in (copy, partial):  # a damaged copy, and what a killed process left; nobody else touches them under this lock
            remains.unlink(missing_ok=True)
        with doing(f"waiting for room in the cache {self.folder} for {file}"):
            while True:
                with self.locked("room"):
                    if self._evict(need):
                        partial.touch()
                        return partial
                time.sleep(WAIT)

    def _evict(self, need: int) -> bool:
        """Remove copies until `need` more bytes fit; False where what others are fetching leaves too little room."""
        copies = self._copies()
        used = sum(size for _, size, _ in copies)
        for path, size, _ in sorted(copies, key=lambda item: item[2]):
            if used + need <= self.limit:
                break
            if path.suffix != PARTIAL or self._abandoned(path):
                path.unlink(missing_ok=True)
                used -= size
        return used + need <= self.limit

    def _make_room_for_unknown(self, file: RemoteFile, copy: Path) -> None:
        size = copy.stat().st_size if copy.exists() else 0
        if size > self.limit:
            copy.unlink(missing_ok=True)
            self.check_fits(RemoteFile(file.url, size))
        with self.locked("room"):
            self._evict(0)

    def _copies(self) -> list[tuple[Path, int, int]]:
        """(path, bytes, time of last use) of every copy."""
        found = []
        for path in self.data.iterdir():
            with suppress(FileNotFoundError):  # removed by another process at this moment
                state = path.stat()
                claimed = int(path.stem.rpartition(".")[2]) if path.suffix == PARTIAL else 0
                found.append((path, max(state.st_size, claimed), state.st_mtime_ns))
        return found

    def _abandoned(self, partial: Path) -> bool:
        """Whether the process that was writing an unfinished copy is gone; a live one holds the lock."""
        name = partial.stem.rpartition(".")[0]
        descriptor = os.open(self.locks / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)

    def _make_folders(self) -> None:
        try:
            for folder in (self.data, self.indexes, self.locks):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"storage.cache: {self.folder} cannot be made ({error.strerror}); name another folder") from error


def _key(file: RemoteFile) -> str:
    """The name of a file's copy: another version of the file has another one."""
    digest = hashlib.sha256(f"{file.url}\n{file.size}\n{file.version}".encode()).hexdigest()[:32]
    return f"{digest}-{file.name[-100:]}"


def _open_whole(path: Path, size: int | None) -> int | None:
    """Open a file of the expected size; None where there is none. One of another size is damaged and does not count."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    if size is not None and os.fstat(descriptor).st_size != size:
        os.close(descriptor)
        return None
    mark_used(descriptor)
    return descriptor


def mark_used(descriptor: int) -> None:
    """Make this moment a copy's last use; the clock of the file system itself is too coarse to tell uses apart."""
    now = time.time_ns()
    with suppress(PermissionError):  # a copy of another user's: readable, and that is what matters
        os.utime(descriptor, ns=(now, now))
