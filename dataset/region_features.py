"""Region features of a detector, from files in the layout of VinVL and MVP (section 4 of arXiv 2201.12596).

NAME.tsv               id, number of boxes, ..., base64 of float32 [boxes, 2054] a line
NAME.lineidx           byte at which each line begins
imageid2idx.json       id -> line, in the same folder
"""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path

import numpy as np

from common.errors import BadRecord, UserError


class RegionFeatures:
    """Features by image id; the file stays closed between reads, so that loader workers may share this.

    Args:
        path: of the TSV file.

    Raises:
        UserError: it or a file beside it is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        lines, numbers = path.with_suffix(".lineidx"), path.with_name("imageid2idx.json")
        for file in (path, lines, numbers):
            if not file.is_file():
                raise UserError(f"{file}: no such file; region features are a .tsv with its .lineidx and imageid2idx.json beside it")
        try:
            self.starts = [int(line) for line in lines.read_text().split()]
            self.lines = {str(key): int(line) for key, line in json.loads(numbers.read_text(encoding="utf-8")).items()}
        except (ValueError, AttributeError) as error:
            raise UserError(f"{path}: its .lineidx or imageid2idx.json is damaged ({error})") from error

    def __getitem__(self, image: str) -> np.ndarray:
        """Features float32 [V, F] of an image. Raises BadRecord."""
        line = self.lines.get(image)
        if line is None or not 0 <= line < len(self.starts):
            raise BadRecord(f"{self.path} has no image {image}")
        with self.path.open("rb") as file:
            file.seek(self.starts[line])
            cells = file.readline().rstrip(b"\n").split(b"\t")
        try:
            count, values = int(cells[1]), np.frombuffer(base64.b64decode(cells[-1], validate=True), dtype=np.float32)
            features = values.reshape(count, -1)
        except (IndexError, ValueError, binascii.Error) as error:
            raise BadRecord(f"{self.path}, line {line + 1}: no region features ({error})") from error
        if cells[0].decode() != image or not np.isfinite(features).all():
            raise BadRecord(f"{self.path}, line {line + 1}: not the features of image {image}, or not finite")
        return features
