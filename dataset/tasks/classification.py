"""Labelled images, texts, or texts with images: SNLI-VE, XVNLI, and whatever else has one label a record."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from common.errors import UserError
from dataset.config import ClassificationData
from dataset.tasks.labelled import LabelledRecord, Read, read_labelled, values_of

Inputs = Literal["image", "text", "image_text"]


def classification_reader(config: ClassificationData, inputs: Inputs) -> Callable[[Path], Read]:
    """From an image folder, which it need not know, to what reads a file of labelled records.

    Args:
        config: names of keys and labels.
        inputs: what a record must have.
    """
    classes = {label: index for index, label in enumerate(config.labels)}
    keys = config.keys
    wanted = (*((keys.image,) if "image" in inputs else ()), *((keys.text,) if "text" in inputs else ()))

    def parse(where: str, record: dict[str, Any]) -> LabelledRecord | None:
        label, *_ = values_of(where, record, (keys.label, *wanted))
        if str(label) in config.skip_labels:
            return None
        if str(label) not in classes:
            raise UserError(f"{where}: {keys.label} is {label!r}; it is one of {', '.join(classes)} (data.labels, data.skip_labels).")
        images = (_image(record[keys.image]),) if keys.image in wanted else ()
        text = record[keys.text] if keys.text in wanted else None
        if text is not None and not isinstance(text, str):
            raise UserError(f"{where}: {keys.text} is {text!r}; it must be a text.")
        key = str(record.get("pairID", record.get("id", where.rsplit(" ", 1)[-1])))
        return LabelledRecord(where, images, text, classes[str(label)], key)

    return lambda image_root: lambda file: read_labelled(file, parse)


def _image(name: Any) -> str:
    """Flickr30K ids are names without an ending."""
    return str(name) if Path(str(name)).suffix else f"{name}.jpg"
