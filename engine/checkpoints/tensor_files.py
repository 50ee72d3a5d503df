"""safetensors files with a checksum: written in one pass, read by name.

The file is written here rather than by the library, because the checksum must be of what was meant to be written, not of what is found on
the disk afterwards, and because a full disk must show as the system's own error. The layout is the library's: eight bytes with the length
of a JSON header, the header, the tensors one after another.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
CHUNK = 1 << 24
"""Bytes written and hashed at a time; both let other threads run meanwhile."""


@dataclass(frozen=True)
class FileEntry:
    """A file in a manifest."""

    size: int
    sha256: str


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> FileEntry:
    """Write a new safetensors file and wait until it is on the disk.

    Args:
        path: must not exist.
        tensors: on the CPU.

    Raises:
        OSError: it cannot be written; a part of it may be there.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # every tensor is aligned to its own width
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in names:
        tensor = tensors[name]
        end = offset + tensor.nbytes
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    return write_file(path, _blocks(header, (tensors[name] for name in names)))


def write_json(path: Path, content: Any) -> FileEntry:
    """Write a new JSON file and wait until it is on the disk; see `write_tensors`."""
    return write_file(path, [json.dumps(content, indent=1).encode()])


def write_file(path: Path, blocks: Iterable[bytes | memoryview]) -> FileEntry:
    """Write a new file and wait until it is on the disk; see `write_tensors`."""
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        for block in blocks:
            file.write(block)
            digest.update(block)
            size += len(block)
        file.flush()
        os.fsync(file.fileno())
    return FileEntry(size, digest.hexdigest())


def _blocks(header: dict[str, Any], tensors: Iterable[Tensor]) -> Iterator[bytes | memoryview]:
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for tensor in tensors:
        content = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data
        for start in range(0, len(content), CHUNK):
            yield content[start : start + CHUNK]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


class SavedTensors(Mapping[str, Tensor]):
    """The tensors of several safetensors files by name, each read from the disk when it is asked for, into memory of its own.

    Raises (constructor):
        ValueError: two files hold a tensor of the same name.
        SafetensorError, OSError: a file is damaged or missing.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._files: dict[str, Any] = {}
        for file in files:
            opened: Any = safe_open(file, framework="pt")
            for name in opened.keys():  # noqa: SIM118 (not a dict)
                if name in self._files:
                    raise ValueError(f"{name} is in two files, one of them {file.name}")
                self._files[name] = opened

    def __getitem__(self, name: str) -> Tensor:
        # a copy, since a mapped file may be removed while the run still uses the tensor
        return self._files[name].get_tensor(name).clone()

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, [] of a scalar, without reading its values."""
        return tuple(self._files[name].get_slice(name).get_shape())
