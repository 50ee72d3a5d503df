"""Statements about two images, in the layouts of NLVR2 and MaRVL and in the one that published code reads."""

from pathlib import Path
from typing import Any

from common.errors import UserError
from dataset.tasks.labelled import LabelledRecord, Read, read_labelled, values_of

LABELS = {"true": 1, "false": 0}


def statement_reader(image_root: Path) -> Read:
    """Reads a file of statements whose image paths are relative to this folder.

    Layouts, told by the keys of each record:

    - {sentence, label, images: [path, path], identifier (optional)}
    - NLVR2: {identifier: "dev-836-0-0", sentence, label, directory (of training images)}: images dev/dev-836-0-img0.png and -img1.png
    - MaRVL: {caption, label, left_img, right_img, concept (optional)}: images CONCEPT/NAME, or PREFIX/NAME, the prefix being what stands
      before the first dash of the name
    """

    def parse(where: str, record: dict[str, Any]) -> LabelledRecord:
        if "left_img" in record or "right_img" in record:
            text, label, *names = values_of(where, record, ("caption", "label", "left_img", "right_img"))
            images = [_marvl_image(image_root, str(name), record.get("concept")) for name in names]
            key = str(record.get("id", where.rsplit(" ", 1)[-1]))
            return _record(where, text, label, images, key, str(text))
        text, label = values_of(where, record, ("sentence", "label"))
        identifier = record.get("identifier")
        if "images" not in record and identifier is None:
            raise UserError(f"{where}: images is missing, and there is no identifier to find them by.")
        images = record["images"] if "images" in record else _nlvr2_images(where, str(identifier), record.get("directory"))
        key = str(identifier if identifier is not None else where.rsplit(" ", 1)[-1])
        return _record(where, text, label, images, key, _sentence_group(where, str(identifier)) if identifier is not None else str(text))

    return lambda file: read_labelled(file, parse)


def _record(where: str, text: Any, label: Any, images: Any, key: str, group: str) -> LabelledRecord:
    known = LABELS.get(str(label).lower())
    if known is None:
        raise UserError(f"{where}: label is {label!r}; it must be True or False.")
    if not isinstance(images, list) or len(images) != 2 or not all(isinstance(image, str) for image in images):
        raise UserError(f"{where}: images is {images!r}; it must be two paths.")
    if not isinstance(text, str):
        raise UserError(f"{where}: the statement is {text!r}; it must be a text.")
    return LabelledRecord(where, (images[0], images[1]), text, known, key, group)


def _nlvr2_images(where: str, identifier: str, directory: Any) -> list[str]:
    split, *_ = _parts(where, identifier)
    stem = identifier.rsplit("-", 1)[0]
    folder = split if directory is None else f"{split}/{directory}"
    return [f"{folder}/{stem}-img{side}.png" for side in (0, 1)]


def _sentence_group(where: str, identifier: str) -> str:
    """What the identifiers of one sentence with its image pairs have in common: split-set-pair-sentence without the pair."""
    split, scenes, _, sentence = _parts(where, identifier)
    return f"{split}-{scenes}-{sentence}"


def _parts(where: str, identifier: str) -> list[str]:
    parts = identifier.split("-")
    if len(parts) != 4:
        raise UserError(f'{where}: identifier is "{identifier}"; it must be split-set-pair-sentence.')
    return parts


def _marvl_image(root: Path, name: str, concept: Any) -> str:
    prefix = name.split("-", 1)[0] if "-" in name else None
    paths = [f"{folder}/{name}" for folder in (concept, prefix) if folder]
    return next((path for path in paths if (root / path).is_file()), paths[-1] if paths else name)
