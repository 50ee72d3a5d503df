"""The image data sets of X-FM's linear evaluation (arXiv 2301.05065), as torchvision reads them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import numpy as np
from PIL import Image

from common.compat import ensure_torchvision
from common.errors import BadRecord, UserError
from common.scores import Score
from dataset.tasks.labelled import LabelledRecord
from dataset.tasks.sources_config import TorchvisionSource

SPLIT_SEED = 0
"""Of the parts that are held out of sets without splits of their own."""
TEST_SHARE = 0.2
"""Of sets without any split."""


@dataclass(frozen=True)
class TorchvisionSet:
    """One data set."""

    class_name: str
    """In torchvision.datasets."""
    classes: int
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    """train, validation, test -> the arguments that choose it. Without validation a part of train is held out; without any split a fifth
    of all pictures is the test."""
    metrics: tuple[Score, ...] = ("acc",)
    """What is usually reported. The first is what X-FM's table has for all of them."""


def _named(train: str = "train", validation: str | None = None, test: str = "test") -> dict[str, dict[str, Any]]:
    splits = {"train": train, "validation": validation, "test": test}
    return {name: {"split": value} for name, value in splits.items() if value is not None}


_BY_FLAG: dict[str, dict[str, Any]] = {"train": {"train": True}, "test": {"train": False}}
_MEAN: tuple[Score, ...] = ("acc", "mean_per_class")
SETS: dict[str, TorchvisionSet] = {
    "aircraft": TorchvisionSet("FGVCAircraft", 100, _named(validation="val"), _MEAN),
    "caltech101": TorchvisionSet("Caltech101", 101, {}, _MEAN),
    "cars": TorchvisionSet("StanfordCars", 196, _named()),
    "cifar10": TorchvisionSet("CIFAR10", 10, _BY_FLAG),
    "cifar100": TorchvisionSet("CIFAR100", 100, _BY_FLAG),
    "country211": TorchvisionSet("Country211", 211, _named(validation="valid")),
    "dtd": TorchvisionSet("DTD", 47, _named(validation="val")),
    "fer2013": TorchvisionSet("FER2013", 7, _named()),
    "flowers102": TorchvisionSet("Flowers102", 102, _named(validation="val"), _MEAN),
    "food101": TorchvisionSet("Food101", 101, _named()),
    "gtsrb": TorchvisionSet("GTSRB", 43, _named()),
    "imagenet": TorchvisionSet("ImageNet", 1000, {"train": {"split": "train"}, "validation": {"split": "val"}, "test": {"split": "val"}}),
    "mnist": TorchvisionSet("MNIST", 10, _BY_FLAG),
    "pcam": TorchvisionSet("PCAM", 2, _named(validation="val")),
    "pets": TorchvisionSet("OxfordIIITPet", 37, _named(train="trainval"), _MEAN),
    "rendered_sst2": TorchvisionSet("RenderedSST2", 2, _named(validation="val")),
    "stl10": TorchvisionSet("STL10", 10, _named()),
    "sun397": TorchvisionSet("SUN397", 397),
}
"""By the name that configs/published/xfm.yaml has."""


def known_set(source: TorchvisionSource) -> TorchvisionSet:
    """The set that a source names.

    Raises:
        UserError: there is none of that name.
    """
    if source.name not in SETS:
        raise UserError(f"data.source.name is {source.name}; it is one of {', '.join(SETS)}.")
    return SETS[source.name]


def set_records(source: TorchvisionSource, split: str) -> list[LabelledRecord]:
    """The records of a split: train, validation or test.

    Raises:
        UserError: the data set is not under its folder.
    """
    dataset, chosen = _part(source, split)
    labels = _labels(dataset)
    where = f"{source.name}, {split}"
    return [
        LabelledRecord(f"{where} {index}", (), None, int(labels[index]), str(index), picture=partial(_picture, dataset, int(index)))
        for index in chosen
    ]


def set_labels(source: TorchvisionSource) -> list[str]:
    """Names of the classes; their numbers where the data set has none."""
    dataset, count = _open(source, "train"), known_set(source).classes
    names = getattr(dataset, "classes", None) or getattr(dataset, "categories", None) or ()
    named = [", ".join(name) if isinstance(name, tuple) else str(name) for name in names]
    return named if len(named) == count else [str(number) for number in range(count)]


def _part(source: TorchvisionSource, split: str) -> tuple[Any, np.ndarray]:
    """What holds a split, and which of its pictures belong to it."""
    splits = known_set(source).splits
    if split not in ("train", "validation", "test"):
        raise UserError(f"data.source: {source.name} has no split {split}; it has train, validation and test.")
    if split in splits and (split != "train" or "validation" in splits):
        dataset = _open(source, split)
        return dataset, np.arange(len(dataset))
    dataset = _open(source, "train")
    rest = np.arange(len(dataset))
    if not splits:
        test, rest = _held_out(rest, TEST_SHARE)
        if split == "test":
            return dataset, test
    validation, train = _held_out(rest, source.validation_share)
    return dataset, train if split == "train" else validation


def _held_out(indices: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """A random part of this share, and the rest, both in order; the same at every call."""
    order = np.random.default_rng(SPLIT_SEED).permutation(indices)
    count = max(1, round(share * len(indices)))
    return np.sort(order[:count]), np.sort(order[count:])


@lru_cache(maxsize=8)
def _open_cached(class_name: str, root: str, arguments: tuple[tuple[str, Any], ...]) -> Any:
    ensure_torchvision()
    import torchvision.datasets

    return getattr(torchvision.datasets, class_name)(root, **dict(arguments))


def _open(source: TorchvisionSource, split: str) -> Any:
    """torchvision's data set of a split, or of everything where it has none."""
    known = known_set(source)
    arguments = known.splits.get(split, {}) | ({"download": True} if source.download else {})
    try:
        return _open_cached(known.class_name, source.root, tuple(arguments.items()))
    except (RuntimeError, OSError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        where = f"{source.name} is not under {source.root} as torchvision.datasets.{known.class_name} expects it ({reason})"
        hint = "Put it there" + ("." if source.download else ", or set data.source.download to true.")
        raise UserError(f"data.source: {where}. {hint}") from error


def _labels(dataset: Any) -> list[int]:
    """Class numbers of all pictures, without opening these where the data set keeps the numbers; else every item is read."""
    for name in ("targets", "_labels", "labels", "y"):
        if (found := getattr(dataset, name, None)) is not None and len(found) == len(dataset):
            return [int(label) for label in found]
    if (samples := getattr(dataset, "_samples", None)) is not None:
        found = [label for _, label in samples]
        if all(label is not None for label in found):
            return [int(label) for label in found]
    return list(_read_labels(dataset))


def _read_labels(dataset: Any) -> Iterator[int]:
    for index in range(len(dataset)):
        yield int(dataset[index][1])


def _picture(dataset: Any, index: int) -> Image.Image:
    try:
        return dataset[index][0].convert("RGB")
    except (OSError, ValueError) as error:
        raise BadRecord(f"the image cannot be decoded ({error})", "image") from error
