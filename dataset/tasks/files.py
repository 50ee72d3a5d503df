"""Reading the JSON lists of the fine-tuning data sets, naming file and record in every complaint."""

import json
import logging
from pathlib import Path
from typing import Any

from common.errors import UserError
from dataset.config import TaskData
from dataset.streams.base import TextSide

logger = logging.getLogger(__name__)


def read_records(file: Path) -> list[tuple[str, dict[str, Any]]]:
    """The records of a JSON list or of a file of JSON lines, told apart by how the file begins; each with its place, for messages.

    Raises:
        UserError: the file is missing, empty or not of JSON objects.
    """
    try:
        with file.open(encoding="utf-8") as opened:
            lines = opened.read(64).lstrip().startswith("{")
            opened.seek(0)
            numbered = [(number, line) for number, line in enumerate(opened, 1) if line.strip()] if lines else []
    except (OSError, UnicodeDecodeError):
        lines, numbered = False, []
    if not lines:
        return [(f"{file}, record {number}", record) for number, record in enumerate(read_json_list(file, ()))]
    records: list[tuple[str, dict[str, Any]]] = []
    for number, line in numbered:
        try:
            record = json.loads(line)
        except ValueError as error:
            raise UserError(f"{file}, line {number}: not JSON ({error}).") from error
        if not isinstance(record, dict):
            raise UserError(f"{file}, line {number}: not a JSON object.")
        records.append((f"{file}, line {number}", record))
    return records


def read_json_list(file: Path, required: tuple[str, ...]) -> list[dict[str, Any]]:
    """The records of a JSON file.

    Args:
        file: holds a list of objects.
        required: keys that every object must have.

    Raises:
        UserError: the file is missing, not JSON, empty, not a list of objects, or a record misses a key.
    """
    try:
        records = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{file} does not exist. Write the data set first, or correct the path.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as JSON ({error}).") from error
    if not isinstance(records, list) or not records:
        raise UserError(f"{file} must hold a list with at least one record.")
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            raise UserError(f"{file}, record {number}: not a JSON object.")
        missing = [key for key in required if key not in record]
        if missing:
            raise UserError(f"{file}, record {number}: {', '.join(missing)} is missing.")
    return records


def warn_of_count(files: str, what: str, found: int, expected: int | None) -> None:
    """Say that a data set is not the published one, where its number of records tells."""
    if expected is not None and found != expected:
        logger.warning(
            "%s: %s %s, the published data has %s; results do not compare with published ones", files, f"{found:,}", what, f"{expected:,}"
        )


class JsonStream:
    """What the training streams of fine-tuning tasks share: the records of JSON files and the arithmetic of their batches.

    Args:
        config: files, batch size and groups.
        required: keys that every record must have.
        text: makes the text tensors, without masking.
        image_size: side of the model's input in pixels.
        name: of the stream.

    Raises:
        UserError: a file is missing or malformed.
    """

    def __init__(self, config: TaskData, required: tuple[str, ...], text: TextSide, image_size: int, name: str) -> None:
        self.name = name
        self.text = text
        self.image_size = image_size
        self.images_per_batch = self.rows_per_batch = config.batch_size
        self.groups = config.groups
        files = [config.train] if isinstance(config.train, str) else config.train
        self.records = [(file, *numbered) for file in files for numbered in enumerate(self.read(Path(file), required))]

    def read(self, file: Path, required: tuple[str, ...]) -> list[Any]:
        """The records of a file."""
        return read_json_list(file, required)

    def __len__(self) -> int:
        return len(self.records)
