"""Labelled images, texts, or texts with images: SNLI-VE, XVNLI, and whatever else has one label a record; and known data sets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from common.errors import UserError
from dataset.config import ClassificationData
from dataset.tasks.glue import TASKS, glue_records
from dataset.tasks.image_folders import folder_labels, folder_records
from dataset.tasks.labelled import LabelledRecord, Read, read_labelled, values_of
from dataset.tasks.sources_config import GlueSource, ImageFolderSource, TorchvisionSource
from dataset.tasks.torchvision_sets import set_labels, set_records

Inputs = Literal["image", "text", "image_text"]


def class_names(config: ClassificationData) -> list[str]:
    """Names of the classes, in order; none where a number is learned."""
    match config.source:
        case ImageFolderSource():
            return folder_labels(config.source)
        case TorchvisionSource():
            return set_labels(config.source)
        case GlueSource():
            return list(TASKS[config.source.task].labels)
        case None:
            return config.labels


def classification_reader(config: ClassificationData, inputs: Inputs) -> Callable[[Path], Read]:
    """From an image folder, which it need not know, to what reads a file of labelled records, or a split of a source.

    Args:
        config: names of keys and labels, or the source.
        inputs: what a record must have.

    Raises:
        UserError: the source is not where the config says.
    """
    source = config.source
    match source:
        case ImageFolderSource():
            labels = folder_labels(source)
            return lambda _: lambda split: folder_records(source, str(split), labels)
        case TorchvisionSource():
            return lambda _: lambda split: set_records(source, str(split))
        case GlueSource():
            return lambda _: lambda split: glue_records(source, str(split))
        case None:
            return lambda _: lambda file: read_labelled(file, _parser(config, inputs))


def _parser(config: ClassificationData, inputs: Inputs) -> Callable[[str, dict[str, Any]], LabelledRecord | None]:
    """From a record of a file and its place to ours; None where its label is skipped."""
    classes = {label: index for index, label in enumerate(config.labels)}
    keys = config.keys
    wanted = (*((keys.image,) if "image" in inputs else ()), *((keys.text,) if "text" in inputs else ()))

    def parse(where: str, record: dict[str, Any]) -> LabelledRecord | None:
        label, *_ = values_of(where, record, (keys.label, *wanted))
        if str(label) in config.skip_labels:
            return None
        images = (_image(record[keys.image]),) if keys.image in wanted else ()
        text = record[keys.text] if keys.text in wanted else None
        if text is not None and not isinstance(text, str):
            raise UserError(f"{where}: {keys.text} is {text!r}; it must be a text.")
        key = str(record.get("pairID", record.get("id", where.rsplit(" ", 1)[-1])))
        return LabelledRecord(where, images, text, _value(where, label), key)

    def _value(where: str, label: Any) -> int | float:
        if not classes and isinstance(label, int | float):
            return float(label)
        if str(label) not in classes:
            known = ", ".join(classes) or "a number"
            raise UserError(f"{where}: {keys.label} is {label!r}; it is one of {known} (data.labels, data.skip_labels).")
        return classes[str(label)]

    return parse


def _image(name: Any) -> str:
    """Flickr30K ids are names without an ending."""
    return str(name) if Path(str(name)).suffix else f"{name}.jpg"
