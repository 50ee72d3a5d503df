"""Files of a data set: patterns to paths, reads at a position from any process."""

import glob
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from braceexpand import braceexpand

from common.errors import UserError

INDEX_SUFFIXES = (".index.json", ".lines.npz")
"""Endings of the index files that readers keep beside the data; no pattern means them."""


def expand_patterns(patterns: str | Sequence[str]) -> list[Path]:
    """Expand braces, globs and folders into files, sorted within each pattern and each named once.

    `data/{coco,vg}-*.tar`, `data/cc-{00000..00331}.tar`, `data/folder` (all its files but hidden ones, indexes and `_SUCCESS` marks).

    Raises:
        UserError: a pattern (or one alternative of its braces) that matches no file.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    if not patterns:
        raise UserError("no data files are named: give at least one file or pattern")
    found: dict[Path, None] = {}
    for pattern in patterns:
        try:
            alternatives = list(braceexpand(pattern))
        except ValueError as error:
            raise UserError(f"{pattern}: the braces of this file pattern do not close") from error
        for alternative in alternatives:
            paths = _matches(alternative)
            if not paths:
                origin = "" if alternative == pattern else f" (from {pattern})"
                raise UserError(f"{alternative}: no such file{origin}; make it or correct the path in the configuration")
            found.update(dict.fromkeys(paths))
    return list(found)


def _matches(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.is_dir():
        paths = [entry for entry in path.iterdir() if not entry.name.startswith(".") and "_SUCCESS" not in entry.name]
    elif path.exists():  # a literal name wins over its reading as a glob: "set[1].tar"
        return [path]
    else:
        paths = [Path(name) for name in glob.glob(str(path), recursive=True)]
    return sorted(entry for entry in paths if entry.is_file() and not entry.name.endswith(INDEX_SUFFIXES))


class _OpenFile:
    """A descriptor that closes with its last reference, so that a read under way in another thread never loses it."""

    def __init__(self, path: Path) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


class FileReader:
    """Reads bytes at a position, keeping at most `capacity` files open in this process.

    `os.pread` has no file position, so forked workers may share the descriptors they inherit; a pickled reader starts with none.
    """

    def __init__(self, capacity: int = 64) -> None:
        self.capacity = capacity
        self._open: OrderedDict[Path, _OpenFile] = OrderedDict()

    def __getstate__(self) -> dict[str, int]:
        return {"capacity": self.capacity}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__init__(state["capacity"])

    def read(self, path: Path, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset` on.

        Raises:
            UserError: the file is gone, or ends before that since it was indexed.
        """
        if size == 0:
            return b""
        try:
            data = os.pread(self._file(path).descriptor, size, offset)
        except OSError as error:
            raise UserError(f"{path}: cannot be read any more ({error.strerror}); restore it or take it out of the data list") from error
        if len(data) != size:
            raise UserError(f"{path}: truncated after it was indexed, {os.path.getsize(path):,} bytes are left; copy it again")
        return data

    def _file(self, path: Path) -> _OpenFile:
        file = self._open.pop(path, None) or _OpenFile(path)
        self._open[path] = file  # popped and put back: the least recently used is first
        while len(self._open) > self.capacity:
            self._open.popitem(last=False)
        return file
