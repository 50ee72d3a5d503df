"""Files that are whole or absent, whatever happens while they are written."""

import os
from pathlib import Path


def replace_file(path: Path, content: bytes | str) -> None:
    """Write a file under a temporary name, flush it and move it into place: readers see the old one or the new one, never a part.

    Args:
        path: its folder is made where absent.
        content: text is written as UTF-8.

    Raises:
        OSError: the folder cannot be written. Nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        flush(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk.

    Raises:
        OSError: it cannot be opened or flushed.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
