"""A stored sample, the two methods every source of samples has, and how to open one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from common.errors import UserError
from dataset.files import expand_patterns
from dataset.storage import Storage

JSON_LINES = (".json", ".jsonl", ".ndjson")
TEXT_LINES = {".txt"}


@dataclass(frozen=True)
class Record:
    """One stored sample.

    Attributes:
        key: names the sample in its source, for messages and logs.
        image: encoded image file (JPEG, PNG ...); None where the source holds text alone.
        annotation: the sample's parsed JSON object.
    """

    key: str
    image: bytes | None
    annotation: dict[str, Any]


class RecordSource(Protocol):
    """Samples by number, in any order, from any process."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def __getitem__(self, index: int) -> Record:
        """Read one sample.

        Raises:
            BadRecord: this sample cannot be used, by itself or because the file behind it was lost; others can.
            IndexError: there is no such sample.
        """
        ...


def open_source(
    patterns: str | Sequence[str],
    image_key: str = "binary",
    image_root: str | Path | None = None,
    need_image: bool = True,
    storage: Storage | None = None,
) -> RecordSource:
    """Open tar shards, JSON-lines files or, where no image is needed, plain text files, told apart by their extensions.

    Args:
        patterns: files, folders, URLs, or patterns with braces and globs.
        image_key, image_root: layout of JSON-lines files (see `JsonLinesSource`); shards need none of them.
        need_image: whether a record without an image is a bad one.
        storage: how files are read, and where copies of remote ones are kept; None: the defaults.

    Raises:
        UserError: a pattern matches nothing, the extensions are mixed or unknown, or a file is damaged.
    """
    from dataset.jsonlines import JsonLinesSource, TextLinesSource  # here because both readers need `Record` from above
    from dataset.shards import ShardSource

    storage = storage or Storage()
    files = expand_patterns(patterns, storage)
    extensions = {file.suffix.lower() for file in files}
    if extensions == {".tar"}:
        return ShardSource(files, need_image=need_image, storage=storage)
    if extensions and extensions <= set(JSON_LINES):
        return JsonLinesSource(files, image_key, image_root, need_image, storage=storage)
    if extensions == TEXT_LINES and not need_image:
        return TextLinesSource(files, storage=storage)
    held = ", ".join(sorted(extension or "unnamed" for extension in extensions)) or "no"
    kinds = JSON_LINES if need_image else (*JSON_LINES, *TEXT_LINES)
    raise UserError(f"{patterns}: holds {held} files; one source reads either .tar shards or {'/'.join(kinds)} lines")
