"""The layouts of images to be described, read as one.

Karpathy's split   [{image, caption: [text, ...]}], with or without captions and image_id
COCO, NoCaps       {images: [{id, file_name, domain}], annotations: [{image_id, caption}]}, annotations as far as they are public
your own images    a folder
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from dataset.tasks.files import read_json_list
from dataset.text import caption_texts

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_NUMBER = re.compile(r"(\d+)$")


@dataclass(frozen=True)
class DescribedImage:
    """An image and how people described it."""

    image_id: int | str
    image: str
    """Path of the file, relative to a folder that the settings tell."""
    captions: tuple[str, ...]
    """Empty where they are kept secret."""
    domain: str = ""
    """Of NoCaps: in-domain, near-domain or out-domain."""


def read_described(path: Path) -> list[DescribedImage]:
    """The images of a file of any layout, or of a folder.

    Raises:
        UserError: naming the file and the first record that is wrong; or the folder that holds no image.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in ENDINGS)
        if not files:
            raise UserError(f"{path}: a folder without images ({', '.join(ENDINGS)}).")
        return [DescribedImage(str(file.relative_to(path)), str(file.absolute()), ()) for file in files]
    try:
        with path.open(encoding="utf-8") as opened:
            is_object = opened.read(64).lstrip().startswith("{")
    except (OSError, UnicodeDecodeError):
        is_object = False
    found = _of_coco(path) if is_object else _of_list(path)
    ids = [image.image_id for image in found]
    if len(set(ids)) != len(ids):
        twice = next(one for one in ids if ids.count(one) > 1)
        raise UserError(f"{path}: two images have the id {twice}; every image is described once.")
    return found


def _of_list(path: Path) -> list[DescribedImage]:
    records = read_json_list(path, ("image",))
    return [DescribedImage(image_id_of(record), record["image"], tuple(caption_texts(record.get("caption")))) for record in records]


def _of_coco(path: Path) -> list[DescribedImage]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        captions: dict[Any, list[str]] = {}
        for annotation in content.get("annotations", ()):
            captions.setdefault(annotation["image_id"], []).append(annotation["caption"])
        images = content["images"]
        return [DescribedImage(one["id"], one["file_name"], tuple(captions.get(one["id"], ())), one.get("domain", "")) for one in images]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        layout = "images with id and file_name, annotations with image_id and caption"
        raise UserError(f"{path}: not COCO's layout, {layout} ({error!r}).") from error


def image_id_of(record: dict[str, Any]) -> int | str:
    """A record's image_id; without one the number that the file's name ends with, as COCO's do, or the path itself."""
    if "image_id" in record:
        return record["image_id"]
    number = _NUMBER.search(Path(record["image"]).stem)
    return int(number[1]) if number else record["image"]
