"""Images with captions, and the concepts of both: one image, one caption a sample, with phrases, tags and regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import BadRecord
from dataset.boxes import Box, Placement, usable_box
from dataset.concept_text import ConceptText, ConceptTexts, region_tensors
from dataset.concepts import ConceptStream, RegionSettings
from dataset.phrases import Phrase, phrases_of
from dataset.phrases.tagging import words_of
from dataset.records import Record, RecordSource
from dataset.region_features import RegionFeatures
from dataset.streams.base import ROWS_PER_RECORD, RecordStream, Sample, TextRow, image_tensor, naming
from dataset.streams.image_text import record_image
from dataset.text import caption_texts, names_a_side, pre_caption
from dataset.transforms import augment_with_box

NO_PIXELS = np.zeros((1, 1, 3), dtype=np.uint8)
"""The image of a sample that has features instead."""


@dataclass(frozen=True)
class ConceptSample(Sample):
    """A sample with its concepts."""

    text: ConceptText
    tags: tuple[str, ...]
    regions: np.ndarray
    """Boxes float32 [V, 4] as shares of the image: left, top, right, bottom; or features [V, F]."""


class Concepts(RecordStream):
    """The `concepts` stream.

    Args:
        name: of the stream in the recipe.
        source: the records.
        config: its settings.
        texts: makes token sequences.
        image_size: side of the model's input in pixels.
    """

    def __init__(self, name: str, source: RecordSource, config: ConceptStream, texts: ConceptTexts, image_size: int) -> None:
        super().__init__(name, source, config)
        self.config = config
        self.texts = texts
        self.image_size = image_size
        self.features = None if config.regions.features is None else RegionFeatures(Path(config.regions.features))

    def sample(self, index: int, rng: np.random.Generator) -> ConceptSample:
        """One caption of the record, drawn at random, with what belongs to it. Raises BadRecord."""
        record = self.source[index]
        captions = caption_texts(record.annotation.get(self.config.caption_key))
        with naming(record.key):
            if not captions:
                raise BadRecord("there is no caption")
            number = int(rng.integers(len(captions)))
            caption = pre_caption(captions[number], self.texts.max_tokens)
            phrases = stored_phrases(record.annotation.get("phrases"), number, len(captions))
            if phrases is None:
                phrases = phrases_of(captions[number], self.config.phrases.backend)
            pixels, regions = self._image(record, captions, rng)
        kept = len(words_of(caption))  # a cut caption has lost the phrases of its end
        text = self.texts.text(caption, [phrase for phrase in phrases if all(word < kept for word in phrase.words)])
        rows = (TextRow(caption, index * ROWS_PER_RECORD),)
        return ConceptSample(record.key, pixels, rows, rng, text, tags_of(record.annotation, self.config.tags.source), regions)

    def _image(self, record: Record, captions: list[str], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        settings = self.config.regions
        if self.features is not None:
            return NO_PIXELS, self.features[str(record.annotation.get("image_id", record.key))][: settings.max]
        augmentation = self.config.augmentation
        image = record_image(record, self.config.max_pixels, augmentation.decode)
        boxes = [] if settings.source == "grid" else element_boxes(record.annotation, image.width, image.height)
        keep = boxes[int(rng.integers(len(boxes)))] if boxes else (0.0, 0.0, float(image.width), float(image.height))
        may_flip = not (augmentation.careful_flip and names_a_side(captions))
        pixels, placement = augment_with_box(image, keep, self.image_size, augmentation, rng, may_flip)
        return pixels, region_boxes(settings, boxes, placement)

    def collate(self, groups: list[list[Sample]], rngs: list[np.random.Generator]) -> dict[str, Tensor]:
        """Keys as models/tasks/mvp.py names them; regions as `region_boxes` float32 [R, V, 4] with `image`, or as `regions` [R, V, F]."""
        placed = [(group, sample) for group, members in enumerate(groups) for sample in members if isinstance(sample, ConceptSample)]
        samples, draws = [sample for _, sample in placed], [sample.rng for _, sample in placed]
        masking = self.config.masking
        batch = self.texts.text_tensors([sample.text for sample in samples], masking, draws)
        batch |= self.texts.tag_tensors([sample.tags for sample in samples], masking, draws)
        batch |= region_tensors([sample.regions for sample in samples], "region_boxes" if self.features is None else "regions")
        if self.features is None:
            batch["image"] = image_tensor([sample.image for sample in samples])
        batch["sample_ids"] = torch.tensor([sample.rows[0].sample_id for sample in samples], dtype=torch.int64)
        batch["group"] = torch.tensor([group for group, _ in placed], dtype=torch.int64)
        return batch | negative_draws(draws, batch["text_ids"].shape[1])


def negative_draws(rngs: Sequence[np.random.Generator], length: int) -> dict[str, Tensor]:
    """The random numbers by which negatives and regions are chosen; see models/tasks/mvp.py."""
    draws = torch.from_numpy(np.stack([rng.random(4 + 2 * length, dtype=np.float32) for rng in rngs]))
    return {
        "side_draws": draws[:, 0],
        "negative_draws": draws[:, 1:3],
        "other_draws": draws[:, 3],
        "grounding_draws": draws[:, 4:].unflatten(1, (length, 2)),
    }


def stored_phrases(stored: Any, number: int, captions: int) -> list[Phrase] | None:
    """The phrases that a record stores for one of its captions, [[[part, ...], [word, ...]], ...] each; None where it stores none.

    Raises:
        BadRecord: they are not of this form, or not of as many captions.
    """
    if stored is None:
        return None
    try:
        if len(stored) != captions:
            raise ValueError(f"{len(stored)} lists for {captions} captions")
        return [Phrase(tuple(map(str, parts)), tuple(map(int, words))) for parts, words in stored[number]]
    except (TypeError, ValueError) as error:
        raise BadRecord(
            f'"phrases" is not a list of [parts, words] for each caption ({error}); run prepare_data.py phrases again'
        ) from error


def tags_of(annotation: dict[str, Any], source: str) -> tuple[str, ...]:
    """The tags of an image, each once; never anything of its caption."""
    if source == "none":
        return ()
    stored = annotation.get("tags") if source == "stored" else [element.get("caption") for element in _elements(annotation)]
    return tuple(dict.fromkeys(tag for tag in (stored if isinstance(stored, list) else ()) if isinstance(tag, str) and tag.strip()))


def element_boxes(annotation: dict[str, Any], width: int, height: int) -> list[Box]:
    """The usable boxes of a record's elements, each once."""
    boxes = [usable_box(element.get("bb"), width, height) for element in _elements(annotation)]
    return list(dict.fromkeys(box for box in boxes if box is not None))


def region_boxes(settings: RegionSettings, boxes: Sequence[Box], placement: Placement | None) -> np.ndarray:
    """The regions of an image as boxes float32 [V, 4], shares of the square: left, top, right, bottom.

    Args:
        settings: where they come from; with `boxes` an image without any gets the whole of itself.
        boxes: annotated ones.
        placement: how they come to the square; None: they are shares of it already.
    """
    placed = [box if placement is None else placement.place(box, settings.min_visible) for box in boxes if settings.source != "grid"]
    size = 1.0 if placement is None else placement.size
    regions = [(x / size, y / size, (x + w) / size, (y + h) / size) for x, y, w, h in (box for box in placed if box is not None)]
    if settings.source in ("grid", "both"):
        regions += [cell for side in settings.grid for cell in grid_cells(side)]
    return np.asarray(regions[: settings.max] or [(0.0, 0.0, 1.0, 1.0)], dtype=np.float32)


def grid_cells(side: int) -> list[Box]:
    """The cells of a grid, rows first."""
    return [(x / side, y / side, (x + 1) / side, (y + 1) / side) for y in range(side) for x in range(side)]


def _elements(annotation: dict[str, Any]) -> list[dict[str, Any]]:
    elements = annotation.get("elems")
    return [element for element in elements if isinstance(element, dict)] if isinstance(elements, list) else []
