"""YAML files as plain values that remember where every key was written."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from common.errors import UserError

KeyPath = tuple[str | int, ...]
"""Where a value stands: keys of mappings and positions in lists, outermost first."""


@dataclass(frozen=True)
class Origin:
    """Where a key was written."""

    source: str
    """A file as the user would name it, or an option such as --set."""
    line: int | None = None
    """Line in the file, from 1."""

    def problem(self, text: str) -> str:
        """One line about a key from here: source, text, line."""
        return f"{self.source}: {text}" + (f" (line {self.line})" if self.line else "")


@dataclass
class Document:
    """Nested plain values with the origin of every key."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[KeyPath, Origin] = field(default_factory=dict)


def dotted(path: KeyPath) -> str:
    """A key path as it is written in `--set` and in messages."""
    return ".".join(str(part) for part in path)


def nearest_origin(origins: Mapping[KeyPath, Origin], path: KeyPath) -> Origin:
    """The origin of a key, or of the closest mapping around it that is known."""
    for length in range(len(path), -1, -1):
        if path[:length] in origins:
            return origins[path[:length]]
    return Origin("config")


def shown(path: Path) -> str:
    """A path as the user would name it: relative to the working directory where it lies below it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def read_document(path: Path) -> Document:
    """Read one YAML 1.2 file, without following its includes.

    Raises:
        UserError: when the file is absent, is not YAML, or is not a mapping.
    """
    source = shown(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not UTF-8 text"
        raise UserError(f"{source}: cannot be read: {reason}.") from error
    values, node = parse_yaml(text, source)
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise UserError(f"{source}: must be a mapping of settings, not {describe(values)}.")
    origins = {(): Origin(source)}
    if node is not None:
        origins |= {path: Origin(source, line) for path, line in _lines(node, ())}
    return Document(_text_keys(values), origins)


def parse_yaml(text: str, source: str) -> tuple[Any, Node | None]:
    """Values and syntax tree of a YAML text. Only plain values: no tags, no Python objects.

    Raises:
        UserError: naming the source and the line.
    """
    try:
        return YAML(typ="safe", pure=True).load(text), YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = (error.problem or error.context or "it cannot be parsed").strip().splitlines()[0]
        raise UserError(Origin(source, mark.line + 1 if mark else None).problem(f"not valid YAML: {reason}")) from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{source}: not valid YAML: {str(error).strip().splitlines()[0]}") from error


def describe(value: Any) -> str:
    """A value as it is named in a message."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _text_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _text_keys(item) for key, item in value.items()}
    return [_text_keys(item) for item in value] if isinstance(value, list) else value


def _lines(node: Node, path: KeyPath) -> Iterator[tuple[KeyPath, int]]:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            yield here, key.start_mark.line + 1
            yield from _lines(value, here)
    elif isinstance(node, SequenceNode):
        for position, value in enumerate(node.value):
            here = (*path, position)
            yield here, value.start_mark.line + 1
            yield from _lines(value, here)


def merge(base: Document, over: Document) -> None:
    """Lay one document over another, in place: mappings merge key by key, everything else replaces."""
    _merge(base.values, over.values, (), base.origins, over.origins)
    if () in over.origins:
        base.origins[()] = over.origins[()]


def _merge(base: dict[str, Any], over: dict[str, Any], path: KeyPath, origins: dict[KeyPath, Origin], new: dict[KeyPath, Origin]) -> None:
    for key, value in over.items():
        here = (*path, key)
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            if here in new and new[here].line is not None:  # a mapping is its file's, even where --set changed a key of it
                origins[here] = new[here]
            _merge(base[key], value, here, origins, new)
            continue
        base[key] = value
        for old in [item for item in origins if len(item) > len(here) and item[: len(here)] == here]:
            del origins[old]
        origins.update({item: origin for item, origin in new.items() if item[: len(here)] == here})
