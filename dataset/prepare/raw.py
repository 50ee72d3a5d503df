"""Unpacked image sets as record sources: a JSON list with image paths, or a folder of images with text files beside them."""

import json
from pathlib import Path
from typing import Any

from common.errors import BadRecord, UserError
from dataset.jsonlines import JsonLinesSource
from dataset.records import Record, RecordSource
from dataset.shard_index import IMAGE_EXTENSIONS


class JsonListSource:
    """A JSON file with a list of objects {image, caption or captions[, elems]}.

    Args:
        file: the JSON file.
        image_root: folder that the image paths are relative to.
        image_key: key of the image path.

    Raises:
        UserError: the file cannot be read, or holds no list.
    """

    def __init__(self, file: Path, image_root: Path, image_key: str = "image") -> None:
        self.file = file
        self.image_root = image_root
        self.image_key = image_key
        self.records = read_json(file)
        if not isinstance(self.records, list):
            raise UserError(f"{file}: holds a JSON {type(self.records).__name__}, not a list of records")

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Record:
        place = f"{self.file}, record {index}"
        annotation = self.records[index]
        if not isinstance(annotation, dict):
            raise BadRecord(f"{place}: a {type(annotation).__name__}, not a JSON object")
        name = annotation.get(self.image_key)
        if not isinstance(name, str) or not name:
            raise BadRecord(f'{place}: has no image path under "{self.image_key}" (its keys: {", ".join(annotation)})')
        if "captions" in annotation and "caption" not in annotation:
            annotation = {("caption" if key == "captions" else key): value for key, value in annotation.items()}
        return Record(f"{index:08d}", read_image_file(self.image_root / name, place), annotation)


class FolderSource:
    """A folder, with its sub-folders, of images that have NAME.json (an object) or NAME.txt (a caption a line) beside them.

    Args:
        folder: the folder.
        texts: False: images have nothing beside them, and empty annotations.

    Raises:
        UserError: the folder holds no images.
    """

    def __init__(self, folder: Path, texts: bool = True) -> None:
        self.folder = folder
        self.texts = texts
        self.images = sorted(path for path in folder.rglob("*") if path.suffix[1:].lower() in IMAGE_EXTENSIONS and path.is_file())
        if not self.images:
            raise UserError(f"{folder}: holds no images")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Record:
        path = self.images[index]
        key = path.relative_to(self.folder).with_suffix("").as_posix()
        return Record(key, read_image_file(path, str(path)), text_beside(path) if self.texts else {})


def text_beside(image: Path) -> dict[str, Any]:
    """The annotation of an image or video file. Raises BadRecord."""
    notes, texts = image.with_suffix(".json"), image.with_suffix(".txt")
    try:
        if notes.exists():
            annotation = json.loads(notes.read_bytes())
            if not isinstance(annotation, dict):
                raise BadRecord(f"{notes}: a {type(annotation).__name__}, not a JSON object")
            return annotation
        lines = texts.read_text(encoding="utf-8").splitlines()
        return {"caption": [line.strip() for line in lines if line.strip()]}
    except FileNotFoundError as error:
        raise BadRecord(f"{image}: has neither {notes.name} nor {texts.name} beside it") from error
    except (OSError, ValueError) as error:
        raise BadRecord(f"{image}: its text cannot be read ({error})") from error


def read_image_file(path: Path, place: str) -> bytes:
    """The bytes of an image file. Raises BadRecord, naming the place that asks for it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadRecord(f"{place}: image {path} cannot be read ({error.strerror})") from error


def read_json(file: Path) -> Any:
    """The content of a JSON file.

    Raises:
        UserError: it is missing or not JSON.
    """
    try:
        return json.loads(file.read_bytes())
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{file}: is not valid JSON ({error}); copy or download it again") from error


def open_raw(inputs: list[str], image_root: Path | None = None, image_key: str | None = None, texts: bool = True) -> RecordSource:
    """Open any of the three layouts: a folder with images, a JSON list, or JSON-lines files.

    Args:
        inputs: one folder, one JSON list, or files and patterns of JSON lines.
        image_root: folder that image paths are relative to; None: images of JSON lines are base64 text.
        image_key: key of the image; None for the layout's own, "image" for paths and "binary" for base64 text.
        texts: whether images of a folder have texts beside them.

    Raises:
        UserError: an input is missing or has none of the layouts.
    """
    first = Path(inputs[0])
    if len(inputs) == 1 and first.is_dir() and any(path.suffix[1:].lower() in IMAGE_EXTENSIONS for path in first.rglob("*")):
        return FolderSource(first, texts)
    if len(inputs) == 1 and first.is_file() and _starts_with(first, b"["):
        if image_root is None:
            raise UserError(f"{first}: a JSON list names its images by path; say with --image_root which folder they are relative to")
        return JsonListSource(first, image_root, image_key or "image")
    return JsonLinesSource(inputs, image_key or ("binary" if image_root is None else "image"), image_root)


def _starts_with(file: Path, mark: bytes) -> bool:
    with file.open("rb") as content:
        return content.read(256).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(mark)
