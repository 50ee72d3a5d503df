"""The official pre-training layout: text files with one JSON object a line, the image in it as base64 text or as a path."""

import base64
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import BadRecord, UserError
from common.files import replace_file
from dataset.files import FileReader, expand_patterns
from dataset.records import Record

logger = logging.getLogger(__name__)

KEEP_INDEX_FROM = 64 << 20
"""Files of at least this many bytes get their line index kept beside them; smaller ones are scanned faster than it is read."""


class JsonLinesSource:
    """Samples of JSON-lines files by number (all lines that are not blank); safe to use from forked or spawned workers.

    Args:
        patterns: paths with braces, globs or folders (see `expand_patterns`).
        image_key: key of the image: base64 text, or with `image_root` a path.
        image_root: folder that image paths start from ("" for absolute paths); None where images are base64 text.
        need_image: whether a line without an image is a bad record.
        open_files: how many files a process keeps open.

    Raises:
        UserError: a pattern matches nothing.
    """

    def __init__(
        self,
        patterns: str | Sequence[str],
        image_key: str = "binary",
        image_root: str | Path | None = None,
        need_image: bool = True,
        open_files: int = 64,
    ) -> None:
        self.files = expand_patterns(patterns)
        self.image_key = image_key
        self.image_root = None if image_root is None else Path(image_root)
        self.need_image = need_image
        self._lines = [line_index(path) for path in self.files]
        self._first = np.cumsum([0] + [len(lines) for lines in self._lines])  # number of each file's first sample, and the total
        self._reader = FileReader(open_files)

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
        try:
            annotation = json.loads(self._reader.read(path, start, size))
        except ValueError as error:
            raise BadRecord(f"{place}: not valid JSON ({error})") from error
        if not isinstance(annotation, dict):
            raise BadRecord(f"{place}: a {type(annotation).__name__}, not a JSON object")
        image = self._image(annotation, place)
        return Record(f"{path.name}:{line}", image, annotation)

    def _image(self, annotation: dict[str, Any], place: str) -> bytes | None:
        """Take the image out of an annotation: its base64 text is removed, its path stays."""
        value = annotation.get(self.image_key)
        if value is None or value == "":
            if not self.need_image:
                return None
            raise BadRecord(f'{place}: has no image under "{self.image_key}" (its keys: {", ".join(annotation)})')
        if not isinstance(value, str):
            raise BadRecord(f'{place}: "{self.image_key}" is a {type(value).__name__}, not text')
        if self.image_root is not None:
            path = self.image_root / value
            try:
                return path.read_bytes()
            except OSError as error:
                raise BadRecord(f'{place}: image "{value}" cannot be read under {self.image_root} ({error.strerror})') from error
        del annotation[self.image_key]
        try:
            return base64.b64decode(value, validate=True)
        except ValueError as error:
            raise BadRecord(f'{place}: "{self.image_key}" is not base64 text ({error}); set image_root if it is a path') from error


def line_index(path: Path) -> np.ndarray:
    """Offset, size and number (from 1) of every line that is not blank: int64 [n, 3].

    Raises:
        UserError: the file cannot be read.
    """
    try:
        state = path.stat()
        kept = path.with_name(f"{path.name}.lines.npz")
        stamp = np.array([state.st_size, state.st_mtime_ns], dtype=np.int64)
        if state.st_size >= KEEP_INDEX_FROM and kept.exists():
            lines = _kept_index(kept, stamp)
            if lines is not None:
                return lines
        lines = _find_lines(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if state.st_size >= KEEP_INDEX_FROM:
        _keep_index(kept, stamp, lines)
    return lines


def _find_lines(path: Path) -> np.ndarray:
    rows: list[tuple[int, int, int]] = []
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.isspace():
                rows.append((offset, len(line), number))
            offset += len(line)
    return np.array(rows, dtype=np.int64).reshape(len(rows), 3)


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
