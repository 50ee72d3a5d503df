"""Files of a data set: patterns to files, reads at a position from any process."""

import errno
import glob
import os
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from braceexpand import braceexpand

from common.errors import BadRecord, UserError
from dataset.remote import DataFile, RemoteFile, find, protocol_of, reason
from dataset.shard_cache import mark_used
from dataset.storage import ChangedFile, Storage, telling

INDEX_SUFFIXES = (".index.json", ".lines.npz")
"""Endings of the index files that readers keep beside the data; no pattern means them."""


def expand_patterns(patterns: str | Sequence[str | DataFile], storage: Storage | None = None) -> list[DataFile]:
    """Expand braces, globs and folders into files, sorted within each pattern and each named once.

    `data/{coco,vg}-*.tar`, `data/cc-{00000..00331}.tar`, `data/folder` (all its files but hidden ones, indexes and `_SUCCESS` marks),
    `s3://bucket/cc-{00000..00331}.tar`, and where the remote file system can list, `s3://bucket/cc-*.tar` and `s3://bucket/folder/`.

    Args:
        patterns: files that were found before are kept as they are.
        storage: how to ask remote file systems.

    Raises:
        UserError: a pattern (or one alternative of its braces) that matches no file. A remote file without wildcards is not looked for.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    if not patterns:
        raise UserError("no data files are named: give at least one file or pattern")
    found: dict[DataFile, None] = {}
    for pattern in patterns:
        if not isinstance(pattern, str):
            found[pattern] = None
            continue
        try:
            alternatives = list(braceexpand(pattern))
        except ValueError as error:
            raise UserError(f"{pattern}: the braces of this file pattern do not close") from error
        for alternative in alternatives:
            paths = _remote_matches(alternative, storage or Storage()) if protocol_of(alternative) else _matches(alternative)
            if not paths:
                alternative, pattern = (str(RemoteFile(text)) if protocol_of(text) else text for text in (alternative, pattern))
                origin = "" if alternative == pattern else f" (from {pattern})"
                raise UserError(f"{alternative}: no such file{origin}; make it or correct the path in the configuration")
            found.update(dict.fromkeys(paths))
    return list(found)


def _matches(pattern: str) -> Sequence[DataFile]:
    path = Path(pattern.removeprefix("file://").removeprefix("local://")).expanduser()
    if path.is_dir():
        paths = [entry for entry in path.iterdir() if not _is_mark(entry)]
    elif path.exists():  # a literal name wins over its reading as a glob: "set[1].tar"
        return [path]
    else:
        paths = [Path(name) for name in glob.glob(str(path), recursive=True)]
    return sorted(entry for entry in paths if entry.is_file() and not entry.name.endswith(INDEX_SUFFIXES))


def _remote_matches(pattern: str, storage: Storage) -> Sequence[DataFile]:
    with telling(RemoteFile(pattern)):
        files = storage.patiently(lambda: find(pattern))
    return [file for file in files if not (pattern.endswith("/") and _is_mark(file)) and not file.name.endswith(INDEX_SUFFIXES)]


def _is_mark(file: DataFile) -> bool:
    """Whether a file of a folder is none of its data: hidden files, and the marks that jobs leave beside their output."""
    return file.name.startswith(".") or "_SUCCESS" in file.name


class _OpenFile:
    """A descriptor that closes with its last reference, so that a read under way in another thread never loses it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.used = time.monotonic()

    def __del__(self) -> None:
        os.close(self.descriptor)

    def tell_use(self) -> None:
        """Keep a copy in the cache from looking unused; at most once in a second."""
        now = time.monotonic()
        if now - self.used > 1.0:
            self.used = now
            mark_used(self.descriptor)

    def is_removed(self) -> bool:
        """Whether the file has lost its name: its bytes stay on the disk until it is closed."""
        return os.fstat(self.descriptor).st_nlink == 0


class FileReader:
    """Reads bytes at a position, keeping at most `capacity` files open in this process.

    `os.pread` has no file position, so forked workers may share the descriptors they inherit; a pickled reader starts with none.

    Args:
        capacity: files kept open.
        storage: how to open them and how often to try; None: the defaults.
    """

    QUICK_AFTER = 2
    """Failed reads in a row after which a file gets one try and no patience, until it can be read again: a lost shard must not stop a
    worker for seconds at each of its records."""

    def __init__(self, capacity: int = 64, storage: Storage | None = None) -> None:
        self.capacity = capacity
        self.storage = storage or Storage()
        self._open: OrderedDict[DataFile, _OpenFile] = OrderedDict()
        self._failures: dict[DataFile, int] = {}

    def __getstate__(self) -> tuple[int, Storage]:
        return self.capacity, self.storage

    def __setstate__(self, state: tuple[int, Storage]) -> None:
        self.__init__(*state)

    def read(self, file: DataFile, offset: int, size: int, whole: int) -> bytes:
        """Exactly `size` bytes from `offset` on.

        Args:
            file: local or remote.
            offset, size: in bytes.
            whole: size of the file when it was indexed.

        Raises:
            BadRecord: after the last try; the file is gone, was cut or replaced since it was indexed, or its storage fails.
            UserError: a remote file does not fit into the cache.
        """
        if size == 0:
            return b""
        tries = 1 if self._failures.get(file, 0) >= self.QUICK_AFTER else None
        try:
            data = self.storage.patiently(lambda: self._read(file, offset, size, whole), tries)
        except OSError as error:
            self._failures[file] = self._failures.get(file, 0) + 1
            raise BadRecord(f"{file}: cannot be read any more ({reason(error)})", "shard") from error
        self._failures.pop(file, None)
        return data

    def _read(self, file: DataFile, offset: int, size: int, whole: int) -> bytes:
        try:
            opened = self._file(file, whole)
            with self.storage.watched(file, size):
                data = os.pread(opened.descriptor, size, offset)
            if len(data) != size:
                left = os.fstat(opened.descriptor).st_size
                if left < whole:
                    raise ChangedFile(f"truncated after it was indexed, {left:,} of {whole:,} bytes are left; copy it again")
                raise OSError(errno.EIO, f"{len(data):,} bytes came where {size:,} were asked for")
            return data
        except OSError:
            self._open.pop(file, None)  # the next try opens it anew: a handle may be stale
            raise

    def _file(self, file: DataFile, whole: int) -> _OpenFile:
        opened = self._open.pop(file, None)
        if opened is None:
            self._close_removed()
            opened = _OpenFile(self.storage.open(file))
            size = os.fstat(opened.descriptor).st_size
            if size != whole:
                state = "truncated" if size < whole else "replaced"
                raise ChangedFile(f"{state} after it was indexed, it has {size:,} bytes instead of {whole:,}")
        elif isinstance(file, RemoteFile):
            opened.tell_use()
        self._open[file] = opened  # popped and put back: the least recently used is first
        while len(self._open) > self.capacity:
            self._open.popitem(last=False)
        return opened

    def _close_removed(self) -> None:
        """Let go of copies that the cache has removed, so that their room on the disk becomes free."""
        for file, opened in list(self._open.items()):
            if isinstance(file, RemoteFile) and opened.is_removed():
                del self._open[file]
