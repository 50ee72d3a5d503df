"""Pack records into shards: check each image and its annotation, shrink images if asked, leave bad records out and name them."""

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import DataLoader, Dataset

from common.errors import BadRecord, UserError
from dataset.boxes import intersect, scale_box
from dataset.records import Record, RecordSource
from dataset.shard_index import index_path
from dataset.shards import ShardWriter
from dataset.text import caption_texts
from dataset.transforms import MAX_PIXELS, decode_image

KEPT_FORMATS = {b"\xff\xd8\xff": "jpg", b"\x89PNG\r\n\x1a\n": "png"}
"""File starts of images that go into shards as they are; others are encoded as JPEG."""

SHORTEST_SIDES = (8 / 7, 10 / 7, 12 / 7)
"""Sizes worth shrinking to, as multiples of the model's image size: small and fast, the middle, nearly as sharp as the originals."""

HOPELESS = 100
"""If this many records from the start on are all bad, the input is wrong and not its records."""


@dataclass(frozen=True)
class PackOptions:
    """How records become samples.

    Attributes:
        max_samples: samples a shard.
        resize: images with a larger shortest side are shrunk to this many pixels, their boxes with them; None keeps all.
        quality: of JPEG images encoded here, 1 to 95.
        max_pixels: larger images are bad records.
        caption_key: key of captions in the input; called "caption" in the shards.
        workers: processes that decode and shrink; 0 does it in this one.
        texts: whether records must have a caption or elements; False: annotations are left out.
    """

    max_samples: int = 1000
    resize: int | None = None
    quality: int = 90
    max_pixels: int = MAX_PIXELS
    caption_key: str = "caption"
    workers: int = 0
    texts: bool = True


@dataclass(frozen=True)
class Sample:
    """What one record became; `dropped` counts elements with an unusable box or without words."""

    key: str
    image: bytes
    extension: str
    annotation: dict[str, Any]
    dropped: int


@dataclass
class PackReport:
    """What packing did: counts, the messages of bad records, the shards."""

    records: int = 0
    samples: int = 0
    elements: int = 0
    dropped_elements: int = 0
    bad: list[str] = field(default_factory=list)
    shards: list[Path] = field(default_factory=list)


def pack(
    source: RecordSource, folder: Path, prefix: str, options: PackOptions, progress: Callable[[int, int], None] | None = None
) -> PackReport:
    """Write a source's records into shards `folder/prefix-*.tar`, in the source's order.

    Args:
        source: the records.
        folder, prefix: of the shards.
        options: see there.
        progress: called with (records done, records in all) after each.

    Raises:
        UserError: the source has no records, a file of the source is damaged, or nothing but bad records comes.
    """
    if len(source) == 0:
        raise UserError("the input holds no records")
    report = PackReport()
    keys: set[str] = set()
    with ShardWriter(folder, prefix, options.max_samples) as writer:
        for result in _prepared(source, options):
            report.records += 1
            if isinstance(result, str):
                report.bad.append(result)
                if len(report.bad) == min(HOPELESS, len(source)) == report.records:
                    raise UserError(f"the first {report.records} records are all bad, the first because: {report.bad[0]}")
            else:
                if writer.samples % options.max_samples == 0:
                    keys.clear()  # keys must differ within a shard
                writer.write(_unique(result.key, keys), result.image, result.annotation, result.extension)
                report.elements += len(result.annotation.get("elems", ()))
                report.dropped_elements += result.dropped
            if progress is not None:
                progress(report.records, len(source))
    report.samples, report.shards = writer.samples, writer.shards
    return report


def advised_shortest_sides(image_size: int) -> list[int]:
    """Values of `PackOptions.resize` for a model with images of this many pixels: 256, 320 and 384 for 224; 448, 544 and 672 for 384."""
    return [round(image_size * factor / 32) * 32 or 32 for factor in SHORTEST_SIDES]


def remove_shards(folder: Path, prefix: str) -> None:
    """Delete the shards of a prefix with their indexes and what a killed writer left of them."""
    for shard in folder.glob(f"{prefix}-[0-9]*.tar"):
        index_path(shard).unlink(missing_ok=True)
        shard.unlink()
    for part in folder.glob(f".{prefix}-[0-9]*.partial"):
        part.unlink()


def write_bad_records(file: Path, bad: list[str], records: int, max_bad: int | float) -> None:
    """List bad records in a file (none: no file), and refuse too many.

    Args:
        file: one message a line.
        bad: the messages.
        records: how many records there were.
        max_bad: how many may be bad, or, as a float, which share of them.

    Raises:
        UserError: more are bad.
    """
    if not bad:
        file.unlink(missing_ok=True)
        return
    file.write_text("".join(f"{message}\n" for message in bad), encoding="utf-8")
    allowed = max_bad * records if isinstance(max_bad, float) else max_bad
    if len(bad) > allowed:
        raise UserError(f"{len(bad):,} of {records:,} records are bad, more than max_bad={max_bad}; see {file}. The first: {bad[0]}")


def prepare(record: Record, options: PackOptions) -> Sample:
    """Check a record and bring it into the form it is stored in.

    Raises:
        BadRecord: the image cannot be decoded, or neither a caption nor an element can be used.
    """
    if record.image is None:
        raise BadRecord("has no image")
    image = decode_image(record.image, options.max_pixels)  # in full: a cut file shows only then
    data, extension, size = _encode(record.image, image, options)
    if not options.texts:
        return Sample(record.key, data, extension, {}, 0)
    annotation = _rename_captions(record.annotation, options.caption_key)
    dropped = 0
    if "elems" in annotation:
        elements = annotation["elems"] if isinstance(annotation["elems"], list) else []
        fitted = [fit_element(element, image.size, size) for element in elements]
        kept = [element for element in fitted if element is not None]
        if not kept:
            raise BadRecord("none of its elements has a box inside the image and a caption" if elements else '"elems" is empty')
        annotation, dropped = annotation | {"elems": kept}, len(fitted) - len(kept)
    elif not _has_words(annotation.get("caption")):
        raise BadRecord("has neither a caption with words nor elems")
    return Sample(record.key, data, extension, annotation, dropped)


def fit_element(element: Any, old_size: tuple[int, int], new_size: tuple[int, int]) -> dict[str, Any] | None:
    """An element with its box [x, y, w, h] cut to the image and scaled along with it, to hundredths of a pixel.

    Args:
        element: {bb, caption ...}.
        old_size, new_size: (width, height) of the image before and after resizing.

    Returns:
        None where the element has no words, or less than a pixel's width or height of its box is in the image.
    """
    if not isinstance(element, dict) or not _has_words(element.get("caption")):
        return None
    values = element.get("bb")
    if not isinstance(values, list) or len(values) != 4 or not all(isinstance(value, int | float) for value in values):
        return None
    x, y, width, height = values
    box = intersect((x, y, width, height), (0, 0, *old_size))  # also None for numbers that are not finite
    if box is None:
        return None
    box = scale_box(box, new_size[0] / old_size[0], new_size[1] / old_size[1])
    return element | {"bb": [round(value, 2) for value in box]} if min(box[2:]) >= 1 else None


def _encode(data: bytes, image: Image.Image, options: PackOptions) -> tuple[bytes, str, tuple[int, int]]:
    """File bytes, extension and (width, height) of the stored image; the bytes are the input's own where nothing has to change."""
    shortest = min(image.size)
    if options.resize is None or shortest <= options.resize:
        for start, extension in KEPT_FORMATS.items():
            if data.startswith(start):
                return data, extension, image.size
        size = image.size
    else:
        scale = options.resize / shortest
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    # the decoder ignores the rotation mark of cameras, as boxes do, and a new file has none
    image.save(buffer, "JPEG", quality=options.quality)
    return buffer.getvalue(), "jpg", size


def _rename_captions(annotation: dict[str, Any], key: str) -> dict[str, Any]:
    if key == "caption":
        return annotation
    renamed = {("caption" if name == key else name): value for name, value in annotation.items()}
    elements = renamed.get("elems")
    if isinstance(elements, list):
        renamed["elems"] = [_rename_captions(element, key) if isinstance(element, dict) else element for element in elements]
    return renamed


def _has_words(captions: Any) -> bool:
    return any(text.strip() for text in caption_texts(captions))


def _unique(key: str, used: set[str]) -> str:
    """A key that can name a tar member and is not used yet; marks it used."""
    plain = re.sub(r"[^\w-]+", "_", key).strip("_") or "sample"
    name, number = plain, 1
    while name in used:
        number += 1
        name = f"{plain}-{number}"
    used.add(name)
    return name


class _Prepared(Dataset[Sample | str | UserError]):
    """The source through `prepare`; a bad record is its message, and a damaged source an error to raise in the main process."""

    def __init__(self, source: RecordSource, options: PackOptions) -> None:
        self.source = source
        self.options = options

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample | str | UserError:
        try:
            record = self.source[index]
        except BadRecord as error:
            return str(error)
        except UserError as error:  # raised in a worker it would arrive with the worker's traceback in its text
            return error
        try:
            return prepare(record, self.options)
        except BadRecord as error:
            return f"{record.key}: {error}"


def _prepared(source: RecordSource, options: PackOptions) -> Iterator[Sample | str]:
    for result in DataLoader(_Prepared(source, options), batch_size=None, num_workers=options.workers):
        if isinstance(result, UserError):
            raise result
        yield result
