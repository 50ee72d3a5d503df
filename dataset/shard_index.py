"""Where the samples of one tar shard lie: in memory, in the file beside the shard, and found by scanning the shard."""

import json
import logging
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from common.errors import UserError
from common.files import replace_file
from dataset.remote import DataFile, RemoteFile, read_small
from dataset.storage import Storage, telling

logger = logging.getLogger(__name__)

FORMAT = 1
INDEX_ENDING = ".index.json"
VIDEO_EXTENSIONS = frozenset({"mp4", "m4v", "mkv", "webm", "avi", "mov", "mpg", "mpeg"})
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

    def to_json(self) -> str:
        """What the file beside the shard holds."""
        content = {"format": FORMAT, "size": self.size, "keys": [os.fsdecode(key) for key in self.keys], "places": self.places.tolist()}
        return json.dumps(content, separators=(",", ":"))


def index_path(shard: Path) -> Path:
    """The file that holds a shard's index."""
    return shard.with_name(f"{shard.name}{INDEX_ENDING}")


def store_index(shard: Path, index: ShardIndex) -> None:
    """Write a shard's index beside it, whole or not at all."""
    replace_file(index_path(shard), index.to_json())


def load_index(shard: DataFile, storage: Storage) -> ShardIndex:
    """The index of a shard, from the file beside it; scanned from the shard (and stored, where the folder allows) if there is none.

    That of a remote shard is kept in the cache; the shard itself is fetched only where no index lies beside it.

    Args:
        shard: a remote one as `Storage.measure` gives it.
        storage: how to reach it.

    Raises:
        UserError: the shard is missing, has another size than its index says, or is not a complete tar file.
    """
    with telling(shard):
        if isinstance(shard, RemoteFile):
            return _remote_index(shard, storage)
        size = storage.patiently(shard.stat).st_size
        index = _read_index(index_path(shard))
        if index is None:
            index = _scan(shard, storage)
            try:
                store_index(shard, index)
            except OSError as error:  # a read-only data set: scan again next time
                logger.info("%s: the index cannot be kept beside the shard (%s)", shard, error.strerror)
    _check_size(shard, size, index)
    return index


def _remote_index(shard: RemoteFile, storage: Storage) -> ShardIndex:
    kept = storage.cache.index(shard, INDEX_ENDING)
    with storage.cache.locked(kept.name):  # the other processes of the machine find what the first one fetched
        index = _read_index(kept)
        if index is None:
            index = _fetched_index(shard, storage) or _scan(shard, storage)
            if shard.size is not None:
                _check_size(shard, shard.size, index)
            replace_file(kept, index.to_json())
    return index


def _fetched_index(shard: RemoteFile, storage: Storage) -> ShardIndex | None:
    """The index that lies beside a remote shard, None where there is none that can be used."""
    beside = shard.beside(INDEX_ENDING)
    content = None if beside is None else storage.patiently(lambda: read_small(beside))
    return None if content is None else _parse_index(content, str(beside))


def _check_size(shard: DataFile, size: int, index: ShardIndex) -> None:
    if index.size != size:
        state = "truncated" if size < index.size else "changed"
        raise UserError(
            f"{shard}: {state} shard, {size:,} bytes where its index says {index.size:,}; copy it again, "
            f"or delete {shard.name}{INDEX_ENDING} if the shard was replaced on purpose"
        )


def _read_index(path: Path) -> ShardIndex | None:
    """The stored index; None where there is none or it cannot be used (it is then made again)."""
    try:
        return _parse_index(path.read_bytes(), str(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.warning("%s: unreadable index (%s), making it again from the shard", path, error)
        return None


def _parse_index(content: bytes, name: str) -> ShardIndex | None:
    try:
        values = json.loads(content)
        if values["format"] != FORMAT:
            return None
        keys, places = values["keys"], values["places"]
        if len(set(keys)) != len(keys) or len(keys) != len(places):
            raise ValueError("keys and places do not match")
        return ShardIndex.of_rows(dict(zip(keys, places, strict=True)), int(values["size"]))
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        logger.warning("%s: damaged index (%s), making it again from the shard", name, error)
        return None


def _scan(shard: DataFile, storage: Storage) -> ShardIndex:
    """Read all headers of a shard and join its members into samples by their keys."""
    with os.fdopen(storage.patiently(lambda: storage.open(shard)), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        return ShardIndex.of_rows(_rows(file, shard, size), size)


def _rows(file: BinaryIO, shard: DataFile, size: int) -> dict[str, tuple[int, int, int, int]]:
    rows: dict[str, list[int]] = {}
    end = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                end = member.offset_data + (-(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE if member.isreg() else 0)
                if member.isreg():
                    _place(rows, member)
    except tarfile.TarError as error:
        if os.pread(file.fileno(), 2, 0) == b"\x1f\x8b":
            raise UserError(f"{shard}: compressed shard, which cannot be read by random access; unpack it with gunzip") from error
        raise UserError(f"{shard}: truncated shard or not a tar file ({error}); copy or make it again") from error
    # tarfile takes a file that stops between two members, or in a header, for a complete one
    if os.pread(file.fileno(), len(END_OF_ARCHIVE), end) != END_OF_ARCHIVE:
        raise UserError(f"{shard}: truncated shard, no end-of-archive mark after {len(rows):,} samples ({size:,} bytes); copy it again")
    return {key: (row[0], row[1], row[2], row[3]) for key, row in rows.items()}


def _place(rows: dict[str, list[int]], member: tarfile.TarInfo) -> None:
    folder, _, name = member.name.rpartition("/")
    stem, _, extension = name.partition(".")
    last = extension.lower().rpartition(".")[2]
    column = 0 if last in IMAGE_EXTENSIONS or last in VIDEO_EXTENSIONS else 2 if last == "json" else None
    if column is None or not stem:
        return
    row = rows.setdefault(f"{folder}/{stem}" if folder else stem, [0, 0, 0, 0])
    row[column], row[column + 1] = member.offset_data, member.size
