"""A remote file system that fails as it is told, over local folders so that all processes of a test see the same one.

`faulty:///tmp/x/a.tar` is the file /tmp/x/a.tar. What lies beside it decides how it behaves: `a.tar.fail` holds how many fetches fail
with EIO yet, `a.tar.half` makes fetches end at half of it, `a.tar.wait` holds seconds that a fetch takes. /tmp/x/fetched lists the
names of what was fetched.
"""

import errno
import os
import time
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

PROTOCOL = "faulty"
CONTROLS = (".fail", ".half", ".wait")
playing = False
"""Whether this process, or the one it was forked from, plays a scene; see `faulty_run`."""


class FaultyFileSystem(LocalFileSystem):
    """See above."""

    protocol = PROTOCOL

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        return str(super()._strip_protocol(str(path).removeprefix(f"{PROTOCOL}://")))

    def unstrip_protocol(self, name: str) -> str:
        return f"{PROTOCOL}://{name}"

    def get_file(self, path1: Any, path2: Any, *_: Any, **__: Any) -> None:
        source = Path(self._strip_protocol(path1))
        with (source.parent / "fetched").open("a") as file:
            file.write(f"{source.name}\n")
        _fail_as_told(source)
        content = source.read_bytes()
        if wait := _control(source, ".wait"):
            Path(path2).write_bytes(content[: len(content) // 2])
            time.sleep(float(wait))
        Path(path2).write_bytes(content[: len(content) // 2] if _control(source, ".half") else content)

    def cat_file(self, path: Any, *_: Any, **__: Any) -> bytes:
        source = Path(self._strip_protocol(path))
        _fail_as_told(source)
        return source.read_bytes()


def _control(source: Path, ending: str) -> str:
    control = source.with_name(source.name + ending)
    return control.read_text() if control.exists() else ""


def _fail_as_told(source: Path) -> None:
    left = int(_control(source, ".fail") or 0)
    if left:
        source.with_name(f"{source.name}.fail").write_text(str(left - 1))
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def register() -> None:
    """Make faulty:// known to fsspec in this process and those it forks."""
    fsspec.register_implementation(PROTOCOL, FaultyFileSystem, clobber=True)


def url(path: Path) -> str:
    """A path's URL."""
    return f"{PROTOCOL}://{path}"


def fetched(folder: Path) -> list[str]:
    """Names of the files of a folder that were fetched, in order."""
    return (folder / "fetched").read_text().split() if (folder / "fetched").exists() else []
