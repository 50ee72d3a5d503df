"""Records and a tokenizer made in memory, for tests of the data path."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.errors import BadRecord
from dataset.records import Record
from dataset.tokenizers import load_tokenizer, train_wordpiece

SENTENCES = [
    "a red circle left of a blue square",
    "three green triangles on a dotted background",
    "the large purple star beside a small yellow cross",
    "two striped rings near the left edge",
]


def small_tokenizer(folder: Path):
    """A WordPiece tokenizer of a few dozen entries."""
    train_wordpiece(SENTENCES * 20, folder, vocab_size=150)
    return load_tokenizer(folder)


def picture(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A picture that no other number has: uint8 [height, width, 3]."""
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    """The picture as a file's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


class Records:
    """A record source over a list; an image of None stands for a record that cannot be read."""

    def __init__(self, records: list[Record | None]) -> None:
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Record:
        record = self.records[index]
        if record is None:
            raise BadRecord(f"record {index} is damaged")
        return record


def image_records(count: int) -> Records:
    """Images with two captions each that name their number."""
    return Records([Record(f"image{i}", encoded(picture(i)), {"caption": [f"number {i} a", f"number {i} b"]}) for i in range(count)])


def region_annotation(number: int, elements: int) -> dict[str, Any]:
    """Boxes of 8 x 8 pixels in a row."""
    return {
        "caption": f"scene {number}",
        "elems": [{"bb": [8 * k, 8, 8, 8], "caption": f"box {k} of {number}", "attributes": ["red"]} for k in range(elements)],
    }


def region_records(count: int, elements: int = 4) -> Records:
    """Images with described boxes."""
    return Records([Record(f"scene{i}", encoded(picture(i)), region_annotation(i, elements)) for i in range(count)])


def write_json(file: Path, value: Any) -> str:
    """Write a JSON file and give its path."""
    file.write_text(json.dumps(value), encoding="utf-8")
    return str(file)
