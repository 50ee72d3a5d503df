"""The official pre-training layout: text files with one JSON object a line, the image in it as base64 text or as a path."""

import base64
import io
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from common.errors import BadRecord, UserError
from common.files import replace_file
from dataset.files import FileReader, expand_patterns
from dataset.records import Record
from dataset.remote import DataFile, RemoteFile, protocol_of, reason
from dataset.storage import Storage, telling

logger = logging.getLogger(__name__)

LINES_ENDING = ".lines.npz"
KEEP_INDEX_FROM = 64 << 20
"""Files of at least this many bytes get their line index kept beside them; smaller ones are scanned faster than it is read."""


class JsonLinesSource:
    """Samples of JSON-lines files by number (all lines that are not blank); safe to use from forked or spawned workers.

    Args:
        patterns: paths or URLs with braces, globs or folders (see `expand_patterns`), or files found before.
        image_key: key of the image: base64 text, or with `image_root` a path.
        image_root: folder that image paths start from ("" for absolute paths); None where images are base64 text.
        need_image: whether a line without an image is a bad record.
        open_files: how many files a process keeps open.
        storage: how files are read, and where copies of remote ones are kept; None: the defaults.

    Raises:
        UserError: a pattern matches nothing, a file cannot be read, or `image_root` is a URL.
    """

    def __init__(
        self,
        patterns: str | Sequence[str | DataFile],
        image_key: str = "binary",
        image_root: str | Path | None = None,
        need_image: bool = True,
        open_files: int = 64,
        storage: Storage | None = None,
    ) -> None:
        self.storage = storage or Storage()
        if image_root is not None and protocol_of(str(image_root)):
            raise UserError(f"image_root {image_root}: images apart from their records cannot be remote; put both into shards")
        self.files = self.storage.measure(expand_patterns(patterns, self.storage))
        self.image_key = image_key
        self.image_root = None if image_root is None else Path(image_root)
        self.need_image = need_image
        indexes = self.storage.each(lambda file: line_index(file, self.storage), self.files)
        self._lines = [lines for lines, _ in indexes]
        self._sizes = [size for _, size in indexes]
        self._first = np.cumsum([0] + [len(lines) for lines in self._lines])  # number of each file's first sample, and the total
        self._reader = FileReader(open_files, self.storage)

    def __len__(self) -> int:
        return int(self._first[-1])

    def __repr__(self) -> str:
        return f"JsonLinesSource({len(self.files)} files, {len(self)} samples)"

    def __getitem__(self, index: int) -> Record:
        """Read one sample; see `RecordSource`. Its key is `file name:line number`."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        file = int(np.searchsorted(self._first, index, side="right")) - 1
        path = self.files[file]
        start, size, line = self._lines[file][index - int(self._first[file])].tolist()
        place = f"{path}, line {line}"
        annotation = self.parse(self._reader.read(path, start, size, self._sizes[file]), place)
        return Record(f"{path.name}:{line}", self._image(annotation, place), annotation)

    def parse(self, line: bytes, place: str) -> dict[str, Any]:
        """A line's annotation. Raises BadRecord."""
        try:
            annotation = json.loads(line)
        except ValueError as error:
            raise BadRecord(f"{place}: not valid JSON ({error})") from error
        if not isinstance(annotation, dict):
            raise BadRecord(f"{place}: a {type(annotation).__name__}, not a JSON object")
        return annotation

    def _image(self, annotation: dict[str, Any], place: str) -> bytes | None:
        """Take the image out of an annotation: its base64 text is removed, its path stays."""
        value = annotation.get(self.image_key)
        if value is None or value == "":
            if not self.need_image:
                return None
            raise BadRecord(f'{place}: has no image under "{self.image_key}" (its keys: {", ".join(annotation)})', "image")
        if not isinstance(value, str):
            raise BadRecord(f'{place}: "{self.image_key}" is a {type(value).__name__}, not text', "image")
        if self.image_root is not None:
            path = self.image_root / value
            try:
                return self.storage.read_whole(path)
            except OSError as error:
                text = f'{place}: image "{value}" cannot be read under {self.image_root} ({reason(error)})'
                raise BadRecord(text, "image") from error
        del annotation[self.image_key]
        try:
            return base64.b64decode(value, validate=True)
        except ValueError as error:
            text = f'{place}: "{self.image_key}" is not base64 text ({error}); set image_root if it is a path'
            raise BadRecord(text, "image") from error


class TextLinesSource(JsonLinesSource):
    """Plain text files: a line is a document, given as the annotation {"text": line}.

    Args:
        patterns, storage: as for JSON lines.
    """

    def __init__(self, patterns: str | Sequence[str | DataFile], storage: Storage | None = None) -> None:
        super().__init__(patterns, need_image=False, storage=storage)

    def parse(self, line: bytes, place: str) -> dict[str, Any]:
        """See `JsonLinesSource.parse`."""
        try:
            return {"text": line.decode("utf-8").strip()}
        except UnicodeDecodeError as error:
            raise BadRecord(f"{place}: not UTF-8 text (byte {line[error.start]:#04x} at {error.start})") from error


def line_index(file: DataFile, storage: Storage) -> tuple[np.ndarray, int]:
    """Offset, size and number (from 1) of every line that is not blank: int64 [n, 3]; and the size of the file in bytes.

    Raises:
        UserError: the file cannot be read.
    """
    with telling(file):
        if isinstance(file, RemoteFile):
            kept = storage.cache.index(file, LINES_ENDING)
            with storage.cache.locked(kept.name):  # the name of the kept index stands for this version of the file
                return _indexed(file, storage, kept, stamp=np.array([file.size or -1, 0], dtype=np.int64))
        state = storage.patiently(file.stat)
        kept = file.with_name(f"{file.name}{LINES_ENDING}") if state.st_size >= KEEP_INDEX_FROM else None
        return _indexed(file, storage, kept, np.array([state.st_size, state.st_mtime_ns], dtype=np.int64))


def _indexed(file: DataFile, storage: Storage, kept: Path | None, stamp: np.ndarray) -> tuple[np.ndarray, int]:
    """The kept index of a file, if it has the stamp; else a new one, which is kept."""
    lines = _kept_index(kept, stamp) if kept is not None and kept.exists() else None
    if lines is not None and stamp[0] >= 0:
        return lines, int(stamp[0])
    with os.fdopen(storage.patiently(lambda: storage.open(file)), "rb") as content:
        lines, size = _find_lines(content)
    if kept is not None:
        _keep_index(kept, stamp, lines)
    return lines, size


def _find_lines(file: BinaryIO) -> tuple[np.ndarray, int]:
    rows: list[tuple[int, int, int]] = []
    offset = 0
    for number, line in enumerate(file, start=1):
        if not line.isspace():
            rows.append((offset, len(line), number))
        offset += len(line)
    return np.array(rows, dtype=np.int64).reshape(len(rows), 3), offset


def _kept_index(kept: Path, stamp: np.ndarray) -> np.ndarray | None:
    try:
        with np.load(kept, allow_pickle=False) as content:
            return content["lines"] if np.array_equal(content["stamp"], stamp) else None
    except (OSError, ValueError, KeyError) as error:
        logger.warning("%s: damaged line index (%s), making it again", kept, error)
        return None


def _keep_index(kept: Path, stamp: np.ndarray, lines: np.ndarray) -> None:
    content = io.BytesIO()
    np.savez(content, stamp=stamp, lines=lines)
    try:
        replace_file(kept, content.getvalue())
    except OSError as error:  # a read-only data set: scan again next time
        logger.info("%s: the line index cannot be kept (%s)", kept, error.strerror)
