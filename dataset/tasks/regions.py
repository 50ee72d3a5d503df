"""Referring expressions with the candidate boxes that a model ranks (MVP, arXiv 2201.12596, and its code for RefCOCO+).

Shapes: R texts with one image each, V candidates, T tag positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from dataset.boxes import Box, Placement, usable_box
from dataset.concept_text import region_tensors
from dataset.concepts import RegionSettings
from dataset.streams.base import Sample, TextSide, naming
from dataset.streams.concepts import region_boxes, tags_of
from dataset.tasks.grounding import GroundingTrain, expression_tensors
from dataset.tasks.grounding_config import CandidateSettings, GroundingData
from dataset.tokenizers import encode_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class RegionSample(Sample):
    """An expression with its image's candidates."""

    regions: np.ndarray
    """float32 [V, 4] left, top, right, bottom as shares of the square image."""
    tags: tuple[str, ...]


class ExpressionRegions(GroundingTrain):
    """A stream of referring expressions with their boxes and those to choose among.

    Args, errors: as `JsonStream`; records as `GroundingData`, each with candidates.
    """

    ranked = True

    def __init__(
        self, config: GroundingData, settings: CandidateSettings, text: TextSide, image_size: int, name: str = "expressions"
    ) -> None:
        super().__init__(config, text, image_size, name)
        self.settings = settings

    def sample(self, index: int, rng: np.random.Generator) -> RegionSample:
        _, _, (where, record) = self.records[index]
        with naming(where):
            placed = self.place(index, record, rng)
        regions = region_boxes(self.settings.regions, candidate_boxes(record["candidates"], placed.size), placed.placement)
        return RegionSample(where, placed.pixels, (placed.row,), rng, regions, tags_of(record, "stored"))

    def collate(self, groups: list[list[Sample]], rngs: list[np.random.Generator]) -> dict[str, Tensor]:
        """See `expression_tensors` and `candidate_tensors`."""
        samples = [sample for members in groups for sample in members if isinstance(sample, RegionSample)]
        regions, tags = [sample.regions for sample in samples], [sample.tags for sample in samples]
        found = candidate_tensors(regions, tags, self.text.tokenizer, self.settings.max_tag_tokens)
        return expression_tensors(groups, self.text, self.image_size) | found


def candidate_boxes(candidates: Sequence[object] | None, size: tuple[int, int]) -> list[Box]:
    """A record's candidates cut to its image of this (width, height), each once; the whole image where none is a box in it."""
    boxes = [usable_box(candidate, *size, tolerance=math.inf) for candidate in candidates or ()]
    return list(dict.fromkeys(box for box in boxes if box is not None)) or [(0.0, 0.0, float(size[0]), float(size[1]))]


def whole_image(boxes: Sequence[Box], size: tuple[int, int]) -> np.ndarray:
    """Boxes of an image of this (width, height), seen as a whole, as regions float32 [V, 4], shares of it."""
    return region_boxes(RegionSettings(source="boxes", max=len(boxes)), boxes, Placement((0, 0, *size), flipped=False, size=1))


def candidate_tensors(
    regions: Sequence[np.ndarray], tags: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, max_tag_tokens: int
) -> dict[str, Tensor]:
    """region_boxes float32 [R, V, 4], region_mask bool [R, V], tag_ids int64 [R, T], tag_mask bool [R, T], as models/tasks/mvp.py names
    them; an image without tags has [CLS] [SEP]."""
    ids, mask = encode_texts(tokenizer, [" ".join(dict.fromkeys(tag.lower() for tag in row)) for row in tags], max_tag_tokens)
    return region_tensors(regions, "region_boxes") | {"tag_ids": ids, "tag_mask": mask}
