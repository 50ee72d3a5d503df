"""Whether a disk has room, found out before anything is written."""

import shutil
from pathlib import Path


def check_space(folder: Path, needed: int, spare: int = 0) -> str | None:
    """What is wrong, in words, where a folder's disk has no room for so much more; None where it has.

    Args:
        folder: need not exist yet.
        needed: bytes to be written.
        spare: bytes that must be left after that, for logs and the like.

    Raises:
        OSError: the disk cannot be asked.
    """
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free >= needed + spare:
        return None
    left = f" and {in_words(spare)} to spare" if spare else ""
    return f"no space: it takes {in_words(needed)}{left}, and {place} has {in_words(free)} free"


def in_words(count: int) -> str:
    """Bytes as a person reads them."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
