"""The same records in every layout that training reads, for measuring one against the other."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import BadRecord, UserError
from dataset.prepare.pack import PackOptions, pack, prepare
from dataset.records import Record, RecordSource
from dataset.shards import ShardWriter

BASE64, PATH = "binary", "image_file"
"""Keys of base64 images and of image paths in JSON lines."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Files of one layout.

    Attributes:
        name: for people.
        settings: of a stream that reads them.
        bytes_per_image: what has to be read for a sample on average, its annotation included.
    """

    name: str
    settings: dict[str, Any]
    bytes_per_image: float


@dataclass(frozen=True)
class Records:
    """Records in memory, as a source."""

    records: list[Record]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Record:
        return self.records[index]


def first_records(source: RecordSource, count: int) -> Records:
    """The first records that can be used, checked and written as `scripts/make_shards.py` does: captions are called "caption".

    Args:
        source: where from.
        count: at most so many.

    Raises:
        UserError: there is none.
    """
    found: list[Record] = []
    fault = "it holds no records"
    for index in range(len(source)):
        if len(found) == count:
            break
        try:
            sample = prepare(source[index], PackOptions())
        except BadRecord as error:
            fault = str(error)
        else:
            found.append(Record(sample.key, sample.image, sample.annotation))
    if not found:
        raise UserError(f"{source}: none of its records can be used; for example: {fault}.")
    return Records(found)


def write_shards(records: Records, folder: Path) -> Layout:
    """Shards with the images as they are."""
    with ShardWriter(folder, "stored") as writer:
        for number, record in enumerate(records.records):
            writer.write(f"{number:06d}", record.image, record.annotation)
    return Layout("shards, images as stored", {"shards": str(folder / "stored-*.tar")}, _mean_size(writer.shards, len(records)))


def write_shrunk_shards(records: Records, folder: Path, shortest_side: int) -> Layout:
    """Shards with images shrunk as `scripts/prepare_data.py --resize` does."""
    report = pack(records, folder, f"shrunk{shortest_side}", PackOptions(resize=shortest_side))
    settings = {"shards": str(folder / f"shrunk{shortest_side}-*.tar")}
    return Layout(f"shards, shortest side {shortest_side}", settings, _mean_size(report.shards, report.samples))


def write_json_lines(records: Records, folder: Path) -> Layout:
    """The published layout: base64 images within the lines."""
    file = folder / "base64.jsonl"
    rows = (record.annotation | {BASE64: base64.b64encode(record.image or b"").decode()} for record in records.records)
    _write_lines(file, rows)
    settings = {"shards": str(file), "image_key": BASE64, "image_root": None}
    return Layout("JSON lines, base64 images", settings, _mean_size([file], len(records)))


def write_image_files(records: Records, folder: Path) -> Layout:
    """A folder of image files and JSON lines with their paths."""
    images = folder / "images"
    images.mkdir(parents=True)
    rows = []
    for number, record in enumerate(records.records):
        path = images / f"{number:06d}"
        path.write_bytes(record.image or b"")
        rows.append(record.annotation | {PATH: path.name})
    file = folder / "paths.jsonl"
    _write_lines(file, rows)
    settings = {"shards": str(file), "image_key": PATH, "image_root": str(images)}
    return Layout("JSON lines, image files", settings, _mean_size([file, *images.iterdir()], len(records)))


def _write_lines(file: Path, rows: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8") as out:
        out.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)


def _mean_size(files: Any, samples: int) -> float:
    return sum(file.stat().st_size for file in files) / samples
