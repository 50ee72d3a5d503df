"""The layouts of evaluation splits of retrieval, read into one form: images with their captions. How a file begins tells its layout.

COCO, Flickr30K, Multi30K: [{image, caption: [text, ...]}]. xFlickr&CO: a line {sentences: [text, ...], id, img_path} for each image; those
whose path names COCO lie under a folder of their own. WIT: a line {image_url, image_content, caption_reference_description} for each
caption, the image itself in base64; lines of one URL are one image.
"""

import base64
import binascii
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from common.errors import UserError
from dataset.config import RetrievalData, VideoDecoder
from dataset.tasks.files import read_json_list, warn_of_count
from dataset.text import EmptyCaption, Punctuation, caption_texts, pre_caption

WIT_KEYS = "image_url", "image_content", "caption_reference_description"


@dataclass(frozen=True)
class GallerySource:
    """Where an evaluation split is, and how its captions are read."""

    file: Path
    image_root: Path
    coco_root: Path | None = None
    """Of COCO's images in xFlickr&CO; None: `image_root`, too."""
    max_words: int = 30
    """Captions are cut to this many words."""
    punctuation: Punctuation = "space"
    """What becomes of it."""
    decoder: VideoDecoder = "auto"
    """Of clips."""
    expected: int | None = None
    """How many captions the published file has."""


@dataclass
class GalleryImage:
    """An image and what belongs to it."""

    image: Path | bytes
    """The file, or its content."""
    captions: list[str]


def read_gallery(source: GallerySource) -> list[GalleryImage]:
    """All images of a split, in the file's order.

    Raises:
        UserError: the file is missing or malformed, or an image has no caption; names the record or line.
    """
    found = _reader(source.file)(source)
    warn_of_count(str(source.file), "captions", sum(len(image.captions) for image in found), source.expected)
    return found


def gallery_sources(data: RetrievalData, split: Literal["validation", "test"]) -> dict[str, GallerySource]:
    """The files of a split by language; under "" where there is but one."""
    files = by_language(getattr(data, split))
    coco_root = None if data.coco_root is None else Path(data.coco_root)
    return {
        language: GallerySource(
            Path(file),
            Path(data.image_root),
            coco_root,
            data.max_words,
            data.punctuation,
            data.decoder,
            data.expected_of(split, language),
        )
        for language, file in files.items()
    }


def by_language(named: str | Mapping[str, str]) -> dict[str, str]:
    """Files by language; under "" where there is but one."""
    return {"": named} if isinstance(named, str) else dict(named)


def _reader(file: Path) -> Callable[[GallerySource], list[GalleryImage]]:
    """What reads a file that begins like this one. What begins like none is taken for a JSON list, whose reader says what is wrong."""
    keys = first_keys(file)
    return _read_wit if "image_content" in keys else _read_xflickrco if "sentences" in keys else _read_json


def first_keys(file: Path) -> Collection[str]:
    """The keys of the first of a file's JSON lines; none where it cannot be read or holds no such lines."""
    try:
        with file.open(encoding="utf-8") as opened:
            first = next((line for line in opened if line.strip()), "")
        return json.loads(first).keys() if first.lstrip().startswith("{") else ()
    except (OSError, ValueError):
        return ()


def _read_json(source: GallerySource) -> list[GalleryImage]:
    found = []
    for number, record in enumerate(read_json_list(source.file, ("image", "caption"))):
        where = f"{source.file}, record {number}"
        captions = caption_texts(record["caption"])
        if not captions:
            raise UserError(f"{where}: image {record['image']} has no caption.")
        found.append(GalleryImage(source.image_root / record["image"], [_normalised(text, source, where) for text in captions]))
    return found


def _read_xflickrco(source: GallerySource) -> list[GalleryImage]:
    found = []
    for where, record in _lines(source.file, ("sentences", "img_path")):
        sentences = [text for text in caption_texts(record["sentences"]) if text.strip()]
        if sentences:  # as published, images without any are left out
            root = (source.coco_root or source.image_root) if "COCO" in record["img_path"] else source.image_root
            found.append(GalleryImage(root / record["img_path"], [_normalised(text, source, where) for text in sentences]))
    return _some(found, source)


def _read_wit(source: GallerySource) -> list[GalleryImage]:
    by_url: dict[str, GalleryImage] = {}
    for where, record in _lines(source.file, WIT_KEYS):
        caption = record["caption_reference_description"]
        if not isinstance(caption, str) or not caption.strip():
            raise UserError(f"{where}: caption_reference_description is empty.")
        with _at(where):
            text = wit_caption(caption, source.max_words, source.punctuation)
        image = by_url.get(record["image_url"])
        if image is None:
            by_url[record["image_url"]] = GalleryImage(_decoded(record["image_content"], where), [text])
        else:
            image.captions.append(text)
    return _some(list(by_url.values()), source)


def _lines(file: Path, required: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each line is, and its object."""
    try:
        with file.open(encoding="utf-8") as opened:
            for number, line in enumerate(opened, start=1):
                if not line.strip():
                    continue
                where = f"{file}, line {number}"
                try:
                    record = json.loads(line)
                except ValueError as error:
                    raise UserError(f"{where}: not JSON ({error}).") from error
                missing = [key for key in required if key not in record] if isinstance(record, dict) else ["a JSON object"]
                if missing:
                    raise UserError(f"{where}: {', '.join(missing)} is missing.")
                yield where, record
    except FileNotFoundError as error:
        raise UserError(f"{file} does not exist. Download the data set first, or correct the path.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read ({error}).") from error


def wit_caption(text: str, max_words: int, punctuation: Punctuation) -> str:
    """A caption of WIT, normalised; a lone point is kept, as published. Raises EmptyCaption."""
    return text if text == "." else pre_caption(text, max_words, punctuation)


def _normalised(text: str, source: GallerySource, where: str) -> str:
    with _at(where):
        return pre_caption(text, source.max_words, source.punctuation)


@contextmanager
def _at(where: str) -> Iterator[None]:
    """Say which record has a caption without words."""
    try:
        yield
    except EmptyCaption as error:
        raise UserError(f"{where}: {error}.") from error


def _decoded(content: str, where: str) -> bytes:
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise UserError(f"{where}: image_content is not base64 ({error}).") from error


def _some(found: list[GalleryImage], source: GallerySource) -> list[GalleryImage]:
    if not found:
        raise UserError(f"{source.file} holds no image with a caption.")
    return found
