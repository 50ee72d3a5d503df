"""Weights in several files beside an index, in Hugging Face's layout: NAME.index.json holds {"weight_map": {tensor: file}}."""

import json
from pathlib import Path

from common.errors import UserError

SINGLE = "model.safetensors"
INDEX_ENDING = ".index.json"


def is_index(path: Path) -> bool:
    """Whether a path names an index rather than a weights file."""
    return path.name.endswith(INDEX_ENDING)


def weights_in(folder: Path) -> Path | None:
    """The weights of a folder: its model.safetensors, else its index of several files, else None.

    Raises:
        UserError: it holds several indices, as of several models or formats.
    """
    if (folder / SINGLE).is_file():
        return folder / SINGLE
    # an index of safetensors goes before one of torch files, where a model is published in both
    for pattern in (f"*.safetensors{INDEX_ENDING}", f"*{INDEX_ENDING}"):
        found = sorted(folder.glob(pattern))
        if len(found) > 1:
            raise UserError(f"{folder}: holds several sharded models, {', '.join(index.name for index in found)}; name one of them.")
        if found:
            return found[0]
    return None


def read_index(path: Path) -> dict[Path, list[str]]:
    """The files that an index names, each with the names of the tensors that are to be read from it.

    Raises:
        UserError: the index is damaged, or points out of its folder.
    """
    try:
        places = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        files: dict[Path, list[str]] = {}
        for name, file in sorted(places.items()):
            if Path(file).name != file:
                raise UserError(f"{path}: places {name} in {file}, which is not a file beside it.")
            files.setdefault(path.parent / file, []).append(name)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: no index of weights: it is damaged, or lacks weight_map.") from error
    if not files:
        raise UserError(f"{path}: names no tensors.")
    return files
