"""The records of referring expressions, whatever files they come from: JSON lists, REFER's layout, or the one completed by the other."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from dataset.tasks.files import read_json_list
from dataset.tasks.grounding_config import GroundingData, ReferSettings
from dataset.tasks.refer import Refer

BASIC = ("image", "text")
BOXED = (*BASIC, "bbox")
"""Keys of a record of training, without and with its box."""
EVALUATED = (*BOXED, "ref_id")
NUMBER_AT_END = re.compile(r"(\d+)\D*$")


@dataclass(frozen=True)
class Expressions:
    """Where the expressions of a split are."""

    names: tuple[str, ...]
    """JSON files, or splits of `refer`."""
    image_root: Path
    """The folder that image paths are relative to."""
    refer: ReferSettings | None = None
    detections: str | None = None
    """See `GroundingData`."""
    ranked: bool = False
    """Whether candidates are what is ranked, so that every record must have some."""

    @classmethod
    def of(cls, data: GroundingData, names: str | Sequence[str], ranked: bool = False) -> "Expressions":
        """Some of the files or splits of a run's data."""
        return cls((names,) if isinstance(names, str) else tuple(names), Path(data.image_root), data.refer, data.detections, ranked)

    def records(self, required: tuple[str, ...]) -> list[tuple[str, dict[str, Any]]]:
        """All records, each with its place for messages.

        Args:
            required: keys that every record must have once REFER's data are added.

        Returns:
            {image, text, and where known ref_id, bbox, width, height, segmentation, split, candidates}.

        Raises:
            UserError: a file is missing or malformed, or a record misses a key, or candidates where these are `ranked`.
        """
        refer = Refer(self.refer) if self.refer is not None else None
        detections = _Detections(Path(self.detections)) if self.detections is not None else None
        found = [placed for name in self.names for placed in _named(name, refer, required)]
        for place, record in found:
            if detections is not None:
                record["candidates"] = detections.of(record, place)
            elif "dets" in record:  # VLUE's name for them
                record["candidates"] = [box[:4] for box in record["dets"]]
            if self.ranked and not record.get("candidates"):
                raise UserError(f"{place} has no candidates to choose among. Name a file of a detector's boxes in data.detections.")
        return found


def _named(name: str, refer: Refer | None, required: tuple[str, ...]) -> list[tuple[str, dict[str, Any]]]:
    """The records of one file or split, each with its place."""
    if refer is None:
        return [(f"{name}, record {number}", record) for number, record in enumerate(read_json_list(Path(name), required))]
    if not name.endswith(".json"):
        return [(f"{refer.file}, {name} {number}", record) for number, record in enumerate(refer.records(name))]
    records = read_json_list(Path(name), (*BASIC, "ref_id"))
    return [(f"{name}, record {number}", refer.facts(record["ref_id"]) | record) for number, record in enumerate(records)]


class _Detections:
    """A detector's boxes by image."""

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            self.boxes: dict[str, list[list[float]]] = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError(f"{file} does not exist. Correct data.detections, or set it to null.") from error
        except (OSError, ValueError) as error:
            raise UserError(f"{file} cannot be read as JSON ({error}).") from error
        if not isinstance(self.boxes, dict):
            raise UserError(f"{file} must hold a mapping of image numbers to lists of boxes.")

    def of(self, record: dict[str, Any], place: str) -> list[list[float]]:
        """Those [x, y, w, h] in a record's image, told by its number or by that at the end of the file's name."""
        number = record.get("image_id")
        if number is None and (match := NUMBER_AT_END.search(Path(record["image"]).stem)) is not None:
            number = int(match[1])
        try:
            found = [[float(part) for part in box[:4]] for box in self.boxes[str(number)]]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self.file} has no boxes [x, y, w, h] of image {number}, which {place} is about.") from error
        if not found or any(len(box) != 4 for box in found):
            raise UserError(f"{self.file}: image {number} has no box, or one of fewer than four numbers; {place} needs some.")
        return found
