"""Data sets of referring expressions in REFER's own layout (RefCOCO, RefCOCO+, RefCOCOg).

FOLDER/refs(SPLIT_BY).p is a pickle: [{ref_id, ann_id, image_id, split, sentences: [{sent, ...}], ...}]. FOLDER/instances.json is COCO's:
{images: [{id, file_name, width, height}], annotations: [{id, bbox, segmentation, ...}]}.
"""

import json
import pickle
from pathlib import Path
from typing import Any, NoReturn

from common.errors import UserError
from dataset.tasks.grounding_config import ReferSettings

NEEDED = ("ref_id", "ann_id", "image_id", "split", "sentences")


class Refer:
    """One of these data sets.

    Args:
        settings: the folder, and whose splits.

    Raises:
        UserError: a file is missing, damaged, or a pickle that holds more than lists, dictionaries, texts and numbers.
    """

    def __init__(self, settings: ReferSettings) -> None:
        self.file = Path(settings.folder) / f"refs({settings.split_by}).p"
        self.refs = {ref["ref_id"]: ref for ref in _read_refs(self.file)}
        instances = Path(settings.folder) / "instances.json"
        try:
            content = json.loads(instances.read_text(encoding="utf-8"))
            self.images = {image["id"]: image for image in content["images"]}
            self.annotations = {annotation["id"]: annotation for annotation in content["annotations"]}
        except FileNotFoundError as error:
            raise UserError(f"{instances} does not exist. Put REFER's data set there, or correct data.refer.folder.") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{instances} is not COCO's layout of images and annotations ({error!r}).") from error

    def facts(self, ref_id: Any) -> dict[str, Any]:
        """What is known of a reference's object and image: bbox, segmentation, width, height, image_id, split.

        Raises:
            UserError: the reference, its object or its image is unknown.
        """
        try:
            ref = self.refs[ref_id]
            annotation, image = self.annotations[ref["ann_id"]], self.images[ref["image_id"]]
            found = {"bbox": annotation["bbox"], "width": image["width"], "height": image["height"]}
        except KeyError as error:
            raise UserError(f"{self.file}: nothing is known of {error} for reference {ref_id}. Are both files of one data set?") from error
        return found | {"segmentation": annotation.get("segmentation"), "image_id": ref["image_id"], "split": ref["split"]}

    def records(self, split: str) -> list[dict[str, Any]]:
        """All sentences of a split as records {image, text, ref_id, ...}, image a file name of COCO.

        Raises:
            UserError: there is no such split.
        """
        chosen = [ref for ref in self.refs.values() if ref["split"] == split]
        if not chosen:
            known = ", ".join(sorted({str(ref["split"]) for ref in self.refs.values()}))
            raise UserError(f'{self.file} has no split "{split}". It has {known}; the name of a file ends in .json.')
        return [
            {"image": self.images[ref["image_id"]]["file_name"], "text": sentence["sent"], "ref_id": ref["ref_id"], **facts}
            for ref in chosen
            for facts in [self.facts(ref["ref_id"])]
            for sentence in ref["sentences"]
        ]


def _read_refs(file: Path) -> list[dict[str, Any]]:
    try:
        with file.open("rb") as opened:
            refs = _PlainUnpickler(opened, encoding="utf-8", errors="replace").load()  # Python 2 wrote its texts as bytes
    except FileNotFoundError as error:
        raise UserError(f"{file} does not exist. Put REFER's data set there, or correct data.refer.") from error
    except pickle.UnpicklingError as error:
        raise UserError(f"{file} is refused: {error}.") from error
    except Exception as error:  # a damaged pickle fails in any of a dozen ways
        raise UserError(f"{file} is damaged, or no pickle ({type(error).__name__}: {error}).") from error
    if not isinstance(refs, list) or not refs:
        raise UserError(f"{file} must hold a list of references.")
    for number, ref in enumerate(refs):
        missing = [key for key in NEEDED if not isinstance(ref, dict) or key not in ref]
        if missing:
            raise UserError(f"{file}, reference {number}: {', '.join(missing)} is missing.")
    return refs


class _PlainUnpickler(pickle.Unpickler):
    """Reads lists, dictionaries, texts and numbers, and calls nothing."""

    def find_class(self, module_name: str, global_name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it holds more than lists, dictionaries, texts and numbers ({module_name}.{global_name})")
