"""Where the samples of one tar shard lie: in memory, in the file beside the shard, and found by scanning the shard."""

import json
import logging
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.files import replace_file

logger = logging.getLogger(__name__)

FORMAT = 1
IMAGE_EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm"})
END_OF_ARCHIVE = bytes(2 * tarfile.BLOCKSIZE)


@dataclass(frozen=True)
class ShardIndex:
    """Places of a shard's samples, about 30 bytes a sample.

    Attributes:
        size: of the shard in bytes.
        keys: [n] byte strings as in the shard (keys of foreign shards may be no valid UTF-8).
        places: [n, 4] image offset, image size, annotation offset, annotation size; size 0 where a member is absent.
    """

    size: int
    keys: np.ndarray
    places: np.ndarray

    @classmethod
    def of_rows(cls, rows: Mapping[str, tuple[int, int, int, int]], size: int) -> "ShardIndex":
        """From key -> (image offset, image size, annotation offset, annotation size)."""
        kind = np.uint32 if size < 2**32 else np.int64
        places = np.array(list(rows.values()), dtype=kind).reshape(len(rows), 4)
        return cls(size, np.array([os.fsencode(key) for key in rows], dtype=np.bytes_), places)

    def __len__(self) -> int:
        return len(self.keys)

    def row(self, sample: int) -> tuple[str, int, int, int, int]:
        """Key and the four places of one sample."""
        image_offset, image_size, text_offset, text_size = self.places[sample].tolist()
        return os.fsdecode(self.keys[sample]), image_offset, image_size, text_offset, text_size


def index_path(shard: Path) -> Path:
    """The file that holds a shard's index."""
    return shard.with_name(f"{shard.name}.index.json")


def store_index(shard: Path, index: ShardIndex) -> None:
    """Write a shard's index beside it, whole or not at all."""
    content = {"format": FORMAT, "size": index.size, "keys": [os.fsdecode(key) for key in index.keys], "places": index.places.tolist()}
    replace_file(index_path(shard), json.dumps(content, separators=(",", ":")).encode())


def load_index(shard: Path) -> ShardIndex:
    """The index of a shard, from the file beside it; scanned from the shard (and stored, where the folder allows) if there is none.

    Raises:
        UserError: the shard is missing, has another size than its index says, or is not a complete tar file.
    """
    try:
        size = shard.stat().st_size
    except OSError as error:
        raise UserError(f"{shard}: missing shard ({error.strerror}); restore it or take it out of the data list") from error
    index = _read_index(shard)
    if index is None:
        try:
            index = _scan(shard, size)
        except OSError as error:
            raise UserError(f"{shard}: cannot be read ({error.strerror})") from error
        try:
            store_index(shard, index)
        except OSError as error:  # a read-only data set: scan again next time
            logger.info("%s: the index cannot be kept beside the shard (%s)", shard, error.strerror)
    if index.size != size:
        state = "truncated" if size < index.size else "changed"
        raise UserError(
            f"{shard}: {state} shard, {size:,} bytes where its index says {index.size:,}; copy it again, "
            f"or delete {index_path(shard).name} if the shard was replaced on purpose"
        )
    return index


def _read_index(shard: Path) -> ShardIndex | None:
    """The stored index; None where there is none or it cannot be used (it is then made again)."""
    try:
        content = json.loads(index_path(shard).read_bytes())
        if content["format"] != FORMAT:
            return None
        keys, places = content["keys"], content["places"]
        if len(set(keys)) != len(keys) or len(keys) != len(places):
            raise ValueError("keys and places do not match")
        return ShardIndex.of_rows(dict(zip(keys, places, strict=True)), int(content["size"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        logger.warning("%s: damaged index (%s), making it again from the shard", index_path(shard), error)
        return None


def _scan(shard: Path, size: int) -> ShardIndex:
    """Read all headers of a shard and join its members into samples by their keys."""
    rows: dict[str, list[int]] = {}
    end = 0
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                end = member.offset_data + (-(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE if member.isreg() else 0)
                if member.isreg():
                    _place(rows, member)
    except tarfile.TarError as error:
        with shard.open("rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
        if compressed:
            raise UserError(f"{shard}: compressed shard, which cannot be read by random access; unpack it with gunzip") from error
        raise UserError(f"{shard}: truncated shard or not a tar file ({error}); copy or make it again") from error
    with shard.open("rb") as file:
        file.seek(end)
        # tarfile takes a file that stops between two members, or in a header, for a complete one
        complete = file.read(len(END_OF_ARCHIVE)) == END_OF_ARCHIVE
    if not complete:
        raise UserError(f"{shard}: truncated shard, no end-of-archive mark after {len(rows):,} samples ({size:,} bytes); copy it again")
    places = {key: (row[0], row[1], row[2], row[3]) for key, row in rows.items()}
    return ShardIndex.of_rows(places, size)


def _place(rows: dict[str, list[int]], member: tarfile.TarInfo) -> None:
    folder, _, name = member.name.rpartition("/")
    stem, _, extension = name.partition(".")
    last = extension.lower().rpartition(".")[2]
    column = 0 if last in IMAGE_EXTENSIONS else 2 if last == "json" else None
    if column is None or not stem:
        return
    row = rows.setdefault(f"{folder}/{stem}" if folder else stem, [0, 0, 0, 0])
    row[column], row[column + 1] = member.offset_data, member.size
