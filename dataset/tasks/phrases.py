"""Held-out captions with phrases and the boxes that each of them means, for measuring which regions phrases find."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from torch.utils.data import Dataset

from common.errors import BadRecord, UserError
from dataset.boxes import Box, usable_box
from dataset.concept_text import ConceptText, ConceptTexts
from dataset.concepts import ConceptStream, RegionSettings
from dataset.phrases import Backend, phrases_of
from dataset.phrases.tagging import words_of
from dataset.streams.concepts import region_boxes
from dataset.tasks.files import read_json_list
from dataset.text import EmptyCaption, pre_caption
from dataset.transforms import read_image, squash

MARKED = re.compile(r"\[/EN#(\d+)(?:/\w+)+ ([^\]]*)\]")
"""A phrase of Flickr30k Entities: [/EN#number/type words]."""


@dataclass(frozen=True)
class Mention:
    """Words of a caption that mean something with a box."""

    words: str
    positions: tuple[int, ...]
    """Where the text says it: its phrase concepts, or its word pieces where the vocabulary has none of them."""
    boxes: np.ndarray
    """float32 [K, 4] left, top, right, bottom as shares of the image; K boxes where it means several things."""


@dataclass(frozen=True)
class PhraseItem:
    """One caption."""

    image: np.ndarray
    """uint8 [S, S, 3]"""
    caption: str
    text: ConceptText
    tags: tuple[str, ...]
    regions: np.ndarray
    """float32 [V, 4]"""
    mentions: tuple[Mention, ...]


class PhraseSet(Dataset[PhraseItem]):
    """Captions of a JSON file or of Flickr30k Entities.

    Args:
        file: JSON list, or the folder of Flickr30k Entities.
        image_root: the folder that image paths are relative to.
        stream: how training makes texts, and regions unless told otherwise.
        texts: makes token sequences.
        image_size: side of the model's input in pixels.
        regions: where regions come from; None: as in training.
        split: of Flickr30k Entities, a file with one image number a line; None: all.

    Raises:
        UserError: a file is missing or malformed, an image unreadable or a box outside: evaluation skips nothing.
    """

    def __init__(
        self,
        file: Path,
        image_root: Path,
        stream: ConceptStream,
        texts: ConceptTexts,
        image_size: int,
        regions: str | None = None,
        split: Path | None = None,
    ) -> None:
        self.file, self.image_root, self.texts, self.image_size = file, image_root, texts, image_size
        self.backend: Backend = stream.phrases.backend
        self.tags = stream.tags.source
        update = {} if regions is None else {"source": regions}
        self.regions = RegionSettings.model_validate(stream.regions.model_dump() | update)
        self.records = read_entities(file, split) if file.is_dir() else read_json_list(file, ("image", "caption", "phrases"))

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> PhraseItem:
        record, where = self.records[index], f"{self.file}, record {index}"
        try:
            image = read_image(self.image_root / record["image"])
            caption = pre_caption(record["caption"], self.texts.max_tokens)
        except (BadRecord, EmptyCaption) as error:
            raise UserError(f"{where}: {error}") from error
        kept = len(words_of(caption))
        phrases = [phrase for phrase in phrases_of(record["caption"], self.backend) if all(word < kept for word in phrase.words)]
        text = self.texts.text(caption, phrases)
        mentions = []
        for phrase in record["phrases"]:
            boxes = [usable_box(box, image.width, image.height) for box in phrase["boxes"]]
            if not boxes or None in boxes:
                raise UserError(f"{where}: a phrase has no box inside the image of {image.width} x {image.height} pixels")
            words = [word for word in phrase["words"] if word < kept]
            positions = positions_of(text, words)
            if positions:  # else the caption was cut before them
                said = " ".join(words_of(caption)[word] for word in words)
                mentions.append(Mention(said, positions, shares([box for box in boxes if box is not None], image.size)))
        proposals = [usable_box(box, image.width, image.height) for box in record.get("regions", ())]
        placed = [box for box in proposals if box is not None]
        scaled = [(x / image.width, y / image.height, w / image.width, h / image.height) for x, y, w, h in placed]
        tags = () if self.tags == "none" else tuple(record.get("tags", ()))
        regions = region_boxes(self.regions, scaled, None)
        return PhraseItem(squash(image, self.image_size), record["caption"], text, tags, regions, tuple(mentions))


def positions_of(text: ConceptText, words: Sequence[int]) -> tuple[int, ...]:
    """The phrase concepts read from these words alone; without any, the word pieces of the words."""
    meant = set(words)
    phrases = [place for place, phrase in zip(text.phrase_positions, text.phrases, strict=True) if meant.issuperset(phrase.words)]
    return tuple(phrases or [place for place, word in enumerate(text.token_words) if word in meant])


def shares(boxes: Sequence[Box], size: tuple[int, int]) -> np.ndarray:
    """Boxes x, y, w, h in pixels as left, top, right, bottom in shares of an image: float32 [K, 4]."""
    corners = np.asarray([(x, y, x + w, y + h) for x, y, w, h in boxes], dtype=np.float32)
    return corners / np.asarray([*size, *size], dtype=np.float32)


def read_entities(folder: Path, split: Path | None) -> list[dict[str, Any]]:
    """Flickr30k Entities: Sentences/NUMBER.txt, one marked caption a line, and Annotations/NUMBER.xml with boxes in pixels.

    Phrases without a box (scenes, things not in the picture) and captions without any other phrase are left out.

    Raises:
        UserError: a file is missing or damaged.
    """
    try:
        if split is not None:
            numbers = split.read_text().split()
        else:
            numbers = sorted(path.stem for path in (folder / "Sentences").glob("*.txt"))
        records = [record for number in numbers for record in _entities_of(folder, number)]
    except (OSError, ElementTree.ParseError, ValueError, TypeError) as error:
        raise UserError(f"{folder}: cannot be read as Flickr30k Entities ({error}); it has Sentences/ and Annotations/") from error
    if not records:
        raise UserError(f"{folder}: holds no phrase with a box; Flickr30k Entities has Sentences/ and Annotations/")
    return records


def _entities_of(folder: Path, number: str) -> list[dict[str, Any]]:
    boxes: dict[str, list[list[float]]] = {}
    for thing in ElementTree.parse(folder / "Annotations" / f"{number}.xml").getroot().findall("object"):
        box = thing.find("bndbox")
        if box is not None:
            left, top, right, bottom = (float(str(box.findtext(side))) for side in ("xmin", "ymin", "xmax", "ymax"))
            for name in thing.findall("name"):
                boxes.setdefault(str(name.text), []).append([left - 1, top - 1, right - left + 1, bottom - top + 1])  # counted from 1
    records = []
    for line in (folder / "Sentences" / f"{number}.txt").read_text(encoding="utf-8").splitlines():
        caption, phrases, end = "", [], 0
        for match in MARKED.finditer(line):
            caption += line[end : match.start()]
            first = len(words_of(caption))
            caption, end = caption + match[2], match.end()
            if match[1] in boxes:
                phrases.append({"words": list(range(first, len(words_of(caption)))), "boxes": boxes[match[1]]})
        if phrases:
            proposals = [box for found in boxes.values() for box in found]
            records.append({"image": f"{number}.jpg", "caption": caption + line[end:], "phrases": phrases, "regions": proposals})
    return records
