"""Documents without images: one row of text a sample (X-FM, arXiv 2301.05065, section 3.3)."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from common.errors import BadRecord
from dataset.records import RecordSource
from dataset.streams.base import NO_IMAGE, ROWS_PER_RECORD, PlacedRow, RecordStream, Sample, TextRow, TextSide, naming
from dataset.streams.unpaired_config import TextStream
from dataset.text import pick_caption

SPECIAL = 2
"""Tokens of a row that no word takes: the first and the last."""


class Texts(RecordStream):
    """The `text` stream.

    Args:
        name: of the stream in the recipe.
        source: the records.
        config: its settings.
        text: makes the text tensors; cuts rows to their length.
    """

    def __init__(self, name: str, source: RecordSource, config: TextStream, text: TextSide) -> None:
        super().__init__(name, source, config)
        self.config = config
        self.text = text

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """The document, or as many words in a row of a longer one as may fill a row, begun at a random word."""
        record = self.source[index]
        with naming(record.key):
            words = pick_caption(record.annotation.get(self.config.text_key), rng).split()
            if not words:
                raise BadRecord("the document has no words")
        room = self.text.max_tokens - SPECIAL
        if len(words) > room:
            start = int(rng.integers(len(words) - room + 1))
            words = words[start : start + room]
        return Sample(record.key, NO_IMAGE, (TextRow(" ".join(words), index * ROWS_PER_RECORD),), rng)

    def collate(self, groups: list[list[Sample]], rngs: list[np.random.Generator]) -> dict[str, Tensor]:
        """The text tensors."""
        rows = [PlacedRow(sample.rows[0], 0, group, sample.rng) for group, members in enumerate(groups) for sample in members]
        return self.text.tensors(rows)
