"""The folder of a run's checkpoints: names, order, tidying up, removal of old ones."""

import logging
import os
import re
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from common.files import flush

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"  # in the folder of a run
MODEL, OPTIMIZER, STATE, MANIFEST, LATEST, BEST = (
    "model.safetensors",
    "optimizer.safetensors",
    "state.json",
    "manifest.json",
    "latest",
    "best",
)
INDEX = "model.safetensors.index.json"
STEP = re.compile(r"step-(\d{8,})")
PARTIAL, REPLACED, REMOVED = ".partial", ".old", ".removed"
"""Endings of hidden folders: being written, making room for a new one of the same name, being deleted."""


def step_name(step: int) -> str:
    """The folder of a step's checkpoint."""
    return f"step-{step:08d}"


def rank_file(name: str, rank: int, world: int) -> str:
    """What a rank calls its part of a file: model.safetensors alone, model-00002-of-00004.safetensors among others."""
    if world == 1:
        return name
    stem, ending = name.split(".", 1)
    return f"{stem}-{rank + 1:05d}-of-{world:05d}.{ending}"


def pointed(folder: Path) -> str | None:
    """The name that `latest` holds; None where it is missing or holds no name of a checkpoint."""
    pointer = folder / LATEST
    try:
        name = pointer.read_text(errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        name = error.strerror or ""
    if not STEP.fullmatch(name):
        logger.warning("%s: holds no name of a checkpoint; the folders beside it are looked at instead", pointer)
        return None
    return name


def by_worth(folder: Path, first: str | None, bad: Collection[str] = ()) -> list[str]:
    """Names of the complete checkpoints, the most wanted one first.

    Args:
        folder: of all checkpoints.
        first: the one that the run stands at; those of later steps belong to a course that was given up, so they come after the earlier.
        bad: known to be damaged; these come last.
    """
    steps = {item.parent.name: int(found[1]) for item in folder.glob(f"step-*/{STATE}") if (found := STEP.fullmatch(item.parent.name))}
    here = steps.get(first or "", max(steps.values(), default=0))
    return sorted(steps, key=lambda name: (name != first, name in bad, steps[name] > here, -steps[name]))


def replace_folder(partial: Path, target: Path) -> None:
    """Move a written folder into place, and wait until that is on the disk.

    Raises:
        OSError: it cannot be moved; what was in its place is there again.
    """
    old = target.with_name(f".{target.name}{REPLACED}")
    if target.exists():
        remove(old)
        target.rename(old)
    try:
        partial.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    flush(target.parent)
    remove(old)


def prune(folder: Path, names: Collection[str]) -> None:
    """Delete checkpoints; what cannot be deleted is named in the log and stays."""
    for name in names:
        # renamed first, so that a deletion that is cut short leaves nothing that looks like a checkpoint
        going = folder / f".{name}{REMOVED}"
        try:
            remove(going)
            (folder / name).rename(going)
            shutil.rmtree(going)
        except OSError as error:
            logger.warning("%s: cannot be removed (%s); delete it by hand", folder / name, error.strerror or error)


def tidy(folder: Path) -> None:
    """Remove what killed writers left, and put back what one had moved aside. Only one process may do this, while nobody writes."""
    for old in folder.glob(f".*{REPLACED}"):
        target = folder / old.name.removeprefix(".").removesuffix(REPLACED)
        if not target.exists():
            old.rename(target)
    for ending in (PARTIAL, REPLACED, REMOVED):
        for leftover in folder.glob(f".*{ending}"):
            remove(leftover)


def remove(path: Path) -> None:
    """Delete a folder or a file as far as that is possible; what resists is named in the log."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)
    if os.path.lexists(path):
        logger.warning("%s: cannot be removed; delete it by hand", path)
