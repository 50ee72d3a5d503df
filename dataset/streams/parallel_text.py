"""Pairs of texts of one meaning in two languages: no image, two texts a sample (CCLM, arXiv 2206.00621, section 3)."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from dataset.parallel_config import ParallelTextStream
from dataset.records import RecordSource
from dataset.streams.base import NO_IMAGE, ROWS_PER_RECORD, RecordStream, Sample, TextRow, TextSide, naming, single_rows
from dataset.text import caption_texts, pick_caption, pre_caption


class ParallelTexts(RecordStream):
    """The `parallel_text` stream.

    Args:
        name: of the stream in the recipe.
        source: the records.
        config: its settings.
        text: makes the text tensors.
    """

    def __init__(self, name: str, source: RecordSource, config: ParallelTextStream, text: TextSide) -> None:
        super().__init__(name, source, config)
        self.config = config
        self.text = text
        self.joins = config.objectives.get("tlm", 0.0) > 0

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Both texts of the record, in an order drawn anew each time. Raises BadRecord."""
        record = self.source[index]
        keys = [self.config.source_key, self.config.target_key]
        if rng.random() < self.config.swap:
            keys.reverse()
        rows = []
        for key in keys:
            with naming(f'{record.key}, "{key}"'):
                text = pre_caption(pick_caption(caption_texts(record.annotation.get(key)), rng), self.text.max_tokens)
            rows.append(TextRow(text, index * ROWS_PER_RECORD))
        return Sample(record.key, NO_IMAGE, tuple(rows), rng)

    def collate(self, groups: list[list[Sample]], rngs: list[np.random.Generator]) -> dict[str, Tensor]:
        """Adds to the text tensors of the first texts those of the second: text_ids_2 int64 [R, K], text_mask_2 bool [R, K] and packed
        text_bins_2; and for tlm those of both in one row, see `TextSide.joined`."""
        first, second = (single_rows(groups, place)[1] for place in (0, 1))
        tensors = self.text.tensors(first) | self.text.second(second)
        return tensors | self.text.joined(first, second) if self.joins else tensors
