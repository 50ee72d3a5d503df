"""Pictures in folders named after their classes (ImageNet's layout)."""

from pathlib import Path

from common.compat import ensure_torchvision
from common.errors import UserError
from dataset.tasks.labelled import LabelledRecord
from dataset.tasks.sources_config import ImageFolderSource

SPLITS = {"train": ("train",), "validation": ("val", "validation"), "test": ("test",)}
"""Split -> what its folder may be called; other splits are called as they are."""


def folder_labels(source: ImageFolderSource) -> list[str]:
    """Names of the class folders of the training split, sorted: their order is that of the classes.

    Raises:
        UserError: there is no such folder, or it holds none.
    """
    folder = _split_folder(source, "train")
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if not names:
        raise UserError(f"data.source: {folder} holds no folders; it needs one for each class.")
    return names


def folder_records(source: ImageFolderSource, split: str, labels: list[str]) -> list[LabelledRecord]:
    """The records of a split, sorted by class and name.

    Args:
        source: where the folders are.
        split: train, validation, test, or the name of another folder.
        labels: the classes. A split may lack some; what other folders hold is an error.

    Raises:
        UserError: the split's folder is missing or holds other classes or no picture.
    """
    ensure_torchvision()
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

    folder, known = _split_folder(source, split), {name: number for number, name in enumerate(labels)}
    other = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name not in known)
    if other:
        raise UserError(f"data.source: {folder / other[0]} is of no class that train has; {len(other)} folders are not.")
    found = make_dataset(str(folder), known, extensions=IMG_EXTENSIONS, allow_empty=True)
    if not found:
        raise UserError(f"data.source: {folder} holds no pictures below its class folders.")
    return [LabelledRecord(path, (path,), None, label, Path(path).relative_to(source.root).as_posix()) for path, label in found]


def _split_folder(source: ImageFolderSource, split: str) -> Path:
    names = SPLITS.get(split, (split,))
    for name in names:
        if (Path(source.root) / name).is_dir():
            return Path(source.root) / name
    raise UserError(f"data.source: {Path(source.root) / names[0]} is not a folder; it should hold a folder for each class.")
