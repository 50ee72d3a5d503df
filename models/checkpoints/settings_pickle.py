"""Torch files whose settings were saved as objects of a library, read with nothing of that library and nothing called.

The official code saves `{"model": tensors, "config": settings}` with settings as its YAML reader gave them: `CommentedMap`, `ScalarFloat`
and the like of ruamel.yaml, attribute dictionaries, `argparse.Namespace`. torch's restricted reader refuses such classes. Here a pickle may
name only classes of a short list, each is replaced by an inert stand-in that is made for this one file, and tensors are rebuilt from the
archive's bytes by this module itself.
"""

import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from common.errors import UserError

YAML_MODULES = ("ruamel.yaml.", "ruamel_yaml.", "ruyaml.")
YAML_ROLES = {
    "Map": "Dictionary",
    "dict": "Dictionary",
    "Seq": "Sequence",
    "String": "Text",
    "Float": "Real",
    "Int": "Whole",
    "Boolean": "Whole",
}
"""Endings of the names of a YAML library's classes to stand-ins; its other classes (comments, positions in the file) are dropped."""
MAPPINGS = {
    "AttrDict",
    "AttributeDict",
    "EasyDict",
    "edict",
    "ConfigDict",
    "Namespace",
    "SimpleNamespace",
    "Munch",
    "Box",
    "ConfigurationDict",
}
"""Classes, of whatever module, whose instances are dictionaries or become ones: their module is never imported."""
PATHS = {"PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"}
PLAIN_CLASSES: dict[str, type] = {"builtins.set": set, "__builtin__.set": set, "collections.OrderedDict": OrderedDict}
STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def is_settings_class(name: str) -> bool:
    """Whether a full class name is one of those that settings are known to be saved as."""
    return name in PLAIN_CLASSES or name.startswith(YAML_MODULES) or _last(name) in MAPPINGS | PATHS


def plain(value: Any) -> Any:
    """Settings as plain dictionaries, lists, strings, numbers, booleans and None; what is none of these is left out as None."""
    return _plain(value, frozenset())


def read_settings_pickle(path: Path, shapes_only: bool) -> Any:
    """What a torch file (a zip archive) holds, classes of settings as stand-ins; see `is_settings_class`.

    Args:
        path: the file.
        shapes_only: give tensors on the meta device.

    Raises:
        UserError: the file is damaged or wants anything else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
            if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != sys.byteorder.encode():
                raise ValueError("it was written on a machine with another byte order")
            with archive.open(f"{root}data.pkl") as file:
                return _Reader(file, _Storages(archive, root, shapes_only)).load()
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} is refused: {error}.") from error
    except Exception as error:  # a damaged or hostile pickle fails in any of a dozen ways
        raise UserError(f"{path}: the file is damaged, or no checkpoint of torch ({type(error).__name__}: {error}).") from error


class _Storages:
    """The blocks of numbers in an archive, each read once."""

    def __init__(self, archive: zipfile.ZipFile, root: str, shapes_only: bool) -> None:
        self.archive = archive
        self.root = root
        self.shapes_only = shapes_only
        self.read: dict[str, Tensor] = {}

    def block(self, key: str, dtype: torch.dtype, count: int) -> Tensor:
        """The numbers [count] of a block."""
        if key not in self.read:
            if self.shapes_only:
                self.read[key] = torch.empty(count, dtype=dtype, device="meta")
            elif count == 0:
                self.read[key] = torch.empty(0, dtype=dtype)
            else:
                self.read[key] = torch.frombuffer(bytearray(self.archive.read(f"{self.root}data/{key}")), dtype=dtype, count=count)
        return self.read[key]

    def tensor(self, storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
        """A view of a block; torch refuses one that reaches beyond it."""
        if not isinstance(storage, Tensor):
            raise pickle.UnpicklingError("a tensor in it has no storage")
        return storage.as_strided(size, stride, offset)


class _Reader(pickle.Unpickler):
    """An unpickler that imports nothing: names become plain classes, stand-ins or sealed calls, or are refused."""

    def __init__(self, file: Any, storages: _Storages) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages = storages
        self.stand_ins = _stand_ins()

    def find_class(self, module_name: str, global_name: str) -> Any:
        """The stand-in for a name in the pickle."""
        name = f"{module_name}.{global_name}"
        if name == "torch._utils._rebuild_tensor_v2":
            return _Sealed(self.storages.tensor)
        if name == "torch._utils._rebuild_parameter":
            return _Sealed(lambda data, *_: data)
        if module_name in ("torch", "torch.storage") and global_name in STORAGES:
            return STORAGES[global_name]
        if name in PLAIN_CLASSES:
            return PLAIN_CLASSES[name]
        if not is_settings_class(name):
            raise pickle.UnpicklingError(f"it holds more than tensors and settings ({name})")
        return self.stand_ins[_role(name)]

    def persistent_load(self, pid: Any) -> Tensor:
        """A block of numbers: ("storage", type, key, device, count)."""
        match pid:
            case ("storage", torch.dtype() as dtype, str() as key, _, int() as count) if key.isalnum():
                return self.storages.block(key, dtype, count)
        raise pickle.UnpicklingError("it refers to something that is no tensor")


class _Sealed:
    """Something that a pickle may call and not change."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: object) -> NoReturn:
        raise pickle.UnpicklingError("it tries to change what reads it")


def _stand_ins() -> dict[str, type]:
    """Classes for one file, so that nothing a pickle does to them outlives its reading."""

    class Silent:
        """State that a library keeps for itself is dropped. Defined on every stand-in, so that a class itself cannot be given any."""

        def __setstate__(self, state: object) -> None:
            return None

    class Dictionary(Silent, dict):  # pyright: ignore[reportMissingTypeArgument]
        def __init__(self, *_: object) -> None:
            super().__init__()

    class Attributes(dict):  # pyright: ignore[reportMissingTypeArgument]
        def __init__(self, *_: object) -> None:
            super().__init__()

        def __setstate__(self, state: object) -> None:
            values = state[0] if isinstance(state, tuple) and state else state
            if isinstance(values, Mapping) and values is not self:
                self.update({key: value for key, value in values.items() if key not in self})

    class Sequence(Silent, list):  # pyright: ignore[reportMissingTypeArgument]
        def __init__(self, *_: object) -> None:
            super().__init__()

    class Text(Silent, str):
        pass

    class Whole(Silent, int):
        pass

    class Real(Silent, float):
        pass

    class Place(Silent, str):
        def __new__(cls, *parts: str) -> "Place":
            return super().__new__(cls, "/".join(parts).replace("//", "/"))

    class Nothing(Silent):
        def __init__(self, *_: object) -> None:
            super().__init__()

    return {kind.__name__: kind for kind in (Dictionary, Attributes, Sequence, Text, Whole, Real, Place, Nothing)}


def _role(name: str) -> str:
    """Which stand-in takes the place of a class of settings."""
    last = _last(name)
    if not name.startswith(YAML_MODULES):
        return "Place" if last in PATHS else "Attributes"
    return next((role for ending, role in YAML_ROLES.items() if last.endswith(ending)), "Nothing")


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _plain(value: Any, above: frozenset[int]) -> Any:
    if id(value) in above:  # an attribute dictionary may hold itself
        return None
    inside = above | {id(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(entry, inside) for key, entry in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(entry, inside) for entry in value]
    if value is None or isinstance(value, bool):
        return value
    return next((kind(value) for kind in (int, float, str) if isinstance(value, kind)), None)
