"""Tar shards in the WebDataset layout, read by random access through an index beside each shard.

A shard `NAME.tar` holds, for every sample, an image `KEY.jpg` (or another image ending) and its annotation `KEY.json`. The index
`NAME.tar.index.json` holds the shard's size in bytes and where each member lies; a shard of other origin gets one when it is first
opened. Shards are plain tar files: any WebDataset reader or `tar` itself reads them too.
"""

import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from common.errors import BadRecord
from dataset.files import FileReader, expand_patterns
from dataset.records import Record
from dataset.remote import DataFile
from dataset.shard_index import ShardIndex, index_path, load_index, store_index
from dataset.storage import Storage

BLOCK = 512
"""Tar pads headers and members to this many bytes; two blocks of zeros end the file."""


class ShardWriter:
    """Writes samples into shards of at most `max_samples`; use it as a context manager.

    The bytes depend on the samples alone (no times, no owners). A shard is written under a hidden temporary name and takes its final
    name when it is complete, so a killed writer leaves no half shard. An error inside the `with` block drops the shard under way;
    finished ones stay. Shards of an earlier run are replaced where names coincide and otherwise left alone.

    Args:
        folder: made if absent.
        prefix: shards are called `{prefix}-000000.tar` and so on.
        max_samples: samples a shard.
    """

    def __init__(self, folder: Path, prefix: str, max_samples: int = 1000) -> None:
        if max_samples < 1:
            raise ValueError(f"max_samples is {max_samples}; a shard holds at least one sample")
        self.folder = Path(folder)
        self.prefix = prefix
        self.max_samples = max_samples
        self.shards: list[Path] = []
        self.samples = 0
        self._file: BinaryIO | None = None
        self._rows: dict[str, tuple[int, int, int, int]] = {}
        self._end = 0

    def __enter__(self) -> "ShardWriter":
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._finish_shard()
        elif self._file is not None:
            self._file.close()
            self._file = None
            self._temporary().unlink(missing_ok=True)

    def write(self, key: str, image: bytes | None, annotation: dict[str, Any], extension: str = "jpg") -> None:
        """Append one sample.

        Args:
            key: unique in its shard; not empty, without dots (WebDataset ends the key at the first dot) and control characters.
            image: encoded image file, or None for a sample of text alone.
            annotation: JSON object.
            extension: of the image member, without the dot.

        Raises:
            ValueError: a key that cannot name a member.
        """
        if not key or "." in key or key.startswith("/") or not key.isprintable():
            raise ValueError(f"{key!r} cannot name a sample: keys are not empty and have no dots or control characters")
        if len(self._rows) == self.max_samples:
            self._finish_shard()
        if key in self._rows:
            raise ValueError(f"two samples of shard {self._path().name} are called {key!r}; their members would be read as one")
        if self._file is None:
            self._file = self._temporary().open("wb")
        image_offset, image_size = (0, 0) if image is None else self._member(f"{key}.{extension}", image)
        text = json.dumps(annotation, ensure_ascii=False, separators=(",", ":")).encode()
        self._rows[key] = (image_offset, image_size, *self._member(f"{key}.json", text))
        self.samples += 1

    def _path(self) -> Path:
        return self.folder / f"{self.prefix}-{len(self.shards):06d}.tar"

    def _temporary(self) -> Path:
        return self.folder / f".{self._path().name}.partial"

    def _member(self, name: str, data: bytes) -> tuple[int, int]:
        """Append one tar member; returns offset and size of its data."""
        assert self._file is not None
        info = tarfile.TarInfo(name)  # its defaults are fixed: mode 0644, owner 0, time 0
        info.size = len(data)
        header = info.tobuf(tarfile.PAX_FORMAT)
        self._file.write(header + data + bytes(-len(data) % BLOCK))
        offset = self._end + len(header)
        self._end = offset + len(data) + -len(data) % BLOCK
        return offset, len(data)

    def _finish_shard(self) -> None:
        if self._file is None:
            return
        self._file.write(bytes(2 * BLOCK))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None
        path, temporary = self._path(), self._temporary()
        # the old index goes first: at no moment does an index lie beside a shard it does not describe
        index_path(path).unlink(missing_ok=True)
        os.replace(temporary, path)
        store_index(path, ShardIndex.of_rows(self._rows, self._end + 2 * BLOCK))
        self.shards.append(path)
        self._rows, self._end = {}, 0


class ShardSource:
    """Samples of a list of shards by number; safe to use from forked or spawned workers.

    Args:
        patterns: paths or URLs with braces and globs (see `expand_patterns`), or files found before.
        need_image: whether a sample without an image is a bad record.
        open_files: how many shards a process keeps open.
        storage: how shards are read, and where copies of remote ones are kept; None: the defaults.

    Raises:
        UserError: a pattern matches nothing, or a shard is missing, cut or no tar file.
    """

    def __init__(
        self, patterns: str | Sequence[str | DataFile], need_image: bool = True, open_files: int = 64, storage: Storage | None = None
    ) -> None:
        storage = storage or Storage()
        self.shards = storage.measure(expand_patterns(patterns, storage))
        self.need_image = need_image
        self._indexes = storage.each(lambda shard: load_index(shard, storage), self.shards)
        self._first = np.cumsum([0] + [len(index) for index in self._indexes])  # number of each shard's first sample, and the total
        self._reader = FileReader(open_files, storage)

    def __len__(self) -> int:
        return int(self._first[-1])

    def __repr__(self) -> str:
        return f"ShardSource({len(self.shards)} shards, {len(self)} samples)"

    def __getitem__(self, index: int) -> Record:
        """Read one sample; see `RecordSource`."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        shard = int(np.searchsorted(self._first, index, side="right")) - 1
        path, places = self.shards[shard], self._indexes[shard]
        key, image_offset, image_size, text_offset, text_size = places.row(index - int(self._first[shard]))
        place = f"{path}, sample {key}"
        if text_size == 0:
            raise BadRecord(f"{place}: has no annotation ({key}.json)")
        if image_size == 0 and self.need_image:
            raise BadRecord(f"{place}: has no image", "image")
        try:
            annotation = json.loads(self._reader.read(path, text_offset, text_size, places.size))
        except ValueError as error:
            raise BadRecord(f"{place}: the annotation is not valid JSON ({error})") from error
        if not isinstance(annotation, dict):
            raise BadRecord(f"{place}: the annotation is a {type(annotation).__name__}, not an object")
        image = self._reader.read(path, image_offset, image_size, places.size) if image_size else None
        return Record(key, image, annotation)
