"""Reading weights files that other code wrote, without running anything that they hold: one file, or several beside an index.

safetensors files hold tensors alone. torch files are pickles, which may call any function: they are read by torch's restricted reader
(`weights_only=True`), and where their settings were saved as objects of a YAML or attribute-dictionary library, by `settings_pickle`, which
puts inert stand-ins in the place of those classes. Whatever wants more is refused. The content decides, not the name: `.th`, `.pth`,
`.bin`, `.pt` and `.tar` are all read the same way.
"""

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from common.errors import UserError
from models.checkpoints.settings_pickle import is_settings_class, plain, read_settings_pickle
from models.checkpoints.sharded import is_index, read_index, weights_in

Format = Literal["safetensors", "zip", "pickle"]

WRAPPERS = ("model", "module", "state_dict")
"""Keys under which training scripts put the weights."""
LARGEST_HEADER = 100_000_000
"""Bytes that safetensors allows its header."""


@dataclass(frozen=True)
class Contents:
    """What a weights file holds."""

    tensors: dict[str, Tensor]
    """By their names in the file; on the meta device where only shapes were asked for."""
    config: dict[str, Any] = field(default_factory=dict)
    """The settings that the official code saves beside the weights, as plain containers; empty where there are none."""
    metadata: dict[str, str] = field(default_factory=dict)
    """Of a safetensors file."""


def read_checkpoint(path: Path) -> Contents:
    """Tensors (on the CPU; of torch files mapped from the file where possible) and settings of a weights file.

    Args:
        path: the file; of weights in several files their NAME.index.json, or the folder.

    Raises:
        UserError: the file is missing, damaged, no weights file, or holds more than tensors and settings.
    """
    return _read(path, shapes_only=False)


def read_shapes(path: Path) -> Contents:
    """As `read_checkpoint`, with tensors on the meta device: their values are not read."""
    return _read(path, shapes_only=True)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file; see `read_checkpoint`."""
    return read_checkpoint(path).tensors


def _read(path: Path, shapes_only: bool) -> Contents:
    if path.is_dir():
        path = weights_in(path) or path
    if is_index(path):
        return _read_sharded(path, shapes_only)
    kind = _format(path)
    if kind == "safetensors":
        return _read_safetensors(path, shapes_only)
    loaded = _read_torch(path, kind, shapes_only)
    if not isinstance(loaded, Mapping):
        raise UserError(f"{path}: not a checkpoint: it holds {type(loaded).__name__}, not a dictionary of tensors.")
    config = plain(loaded.get("config"))
    return Contents(_tensors(path, loaded), config if isinstance(config, dict) else {})


def _read_sharded(index: Path, shapes_only: bool) -> Contents:
    """All files of an index as one; settings and header are those of the first file that has any."""
    tensors: dict[str, Tensor] = {}
    config: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    for file, names in read_index(index).items():
        if is_index(file):
            raise UserError(f"{index}: names another index, {file.name}.")
        part = _read(file, shapes_only)
        missing = [name for name in names if name not in part.tensors]
        if missing:
            raise UserError(f"{file}: lacks {missing[0]}, which {index.name} places there ({len(missing)} missing).")
        tensors |= {name: part.tensors[name] for name in names}
        config, metadata = config or part.config, metadata or part.metadata
    return Contents(tensors, config, metadata)


def _format(path: Path) -> Format:
    """How a file is written, told from how it begins."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder, not a weights file.")
    if not path.is_file():
        raise UserError(f"{path}: no such file.")
    with path.open("rb") as file:
        start = file.read(512)
    if start[8:9] == b"{" and 0 < int.from_bytes(start[:8], "little") <= LARGEST_HEADER:
        return "safetensors"
    if start.startswith(b"PK"):
        return "zip"
    if start.startswith(b"\x80"):
        return "pickle"
    raise UserError(f"{path}: not a checkpoint: {_what_else(start)}.")


def _what_else(start: bytes) -> str:
    """What a file seems to be that is no weights file."""
    if not start:
        return "it is empty"
    if start[257:262] == b"ustar":
        return "it is a tar archive; unpack it and name the file within"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; fetch the file it points to with git lfs pull"
    if start.lstrip()[:1] == b"<":
        return "it begins like a web page; the download gave a page instead of the file"
    return "it begins neither like a safetensors nor like a torch file"


def _read_safetensors(path: Path, shapes_only: bool) -> Contents:
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
            if shapes_only:
                shapes = {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118 (not a dict)
                return Contents({name: torch.empty(shape, device="meta") for name, shape in shapes.items()}, metadata=metadata)
        return Contents(load_file(path), metadata=metadata)
    except Exception as error:  # safetensors raises its own class, which older releases do not export
        raise UserError(f"{path}: not a readable safetensors file, it is damaged or cut off ({error}).") from error


def _read_torch(path: Path, kind: Format, shapes_only: bool) -> Any:
    """What a torch file holds, or an error that says why it is not read."""
    if kind == "zip" and not zipfile.is_zipfile(path):
        raise UserError(f"{path}: the file is damaged or cut off; its end is missing. Download it again.")
    try:
        return _load(path, kind, shapes_only)
    except pickle.UnpicklingError as error:
        unknown = _wanted_classes(path, kind, str(error))
        if not unknown:
            raise UserError(f"{path}: the file is damaged, or no checkpoint of torch ({_first_line(error)}).") from error
        if kind == "zip" and all(is_settings_class(name) for name in unknown):
            return read_settings_pickle(path, shapes_only)
        refused = next((name for name in unknown if not is_settings_class(name)), unknown[0])
        raise UserError(
            f"{path} holds more than tensors and settings ({refused}) and is refused, because loading it could run code. "
            "Save its tensors alone where you trust it, and load that file."
        ) from error
    except Exception as error:  # a damaged file fails in any of a dozen ways
        raise UserError(f"{path}: the file is damaged, or no checkpoint of torch ({_first_line(error)}).") from error


def _load(path: Path, kind: Format, shapes_only: bool) -> Any:
    """torch's restricted reader. Files of releases before 1.6 (kind pickle) can neither be mapped nor read without their values."""
    if kind == "pickle":
        return torch.load(path, map_location="cpu", weights_only=True)
    if shapes_only:
        return torch.load(path, map_location="meta", weights_only=True)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _wanted_classes(path: Path, kind: Format, message: str) -> list[str]:
    """Full names of what a refused file wants imported, beyond what torch allows."""
    if kind == "zip":
        try:
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
        except Exception:  # a pickle with instructions that torch never writes; its message must do
            pass
    return re.findall(r"GLOBAL (\S+)", message)[:1]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1 if isinstance(error, pickle.UnpicklingError) else 0] if lines else type(error).__name__


def _tensors(path: Path, loaded: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The state dict of a loaded file: under a known key, or the whole; what is no tensor is left out."""
    for key in WRAPPERS:
        if isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    tensors = {str(name): value.detach() for name, value in loaded.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path}: not a checkpoint: it holds no tensors, neither at the top nor under {', '.join(WRAPPERS)}.")
    if all(name.startswith("module.") for name in tensors):  # saved from within DistributedDataParallel
        return {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors
