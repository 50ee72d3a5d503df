"""Compose a run's config: includes below the file's own keys, `--set` above them, then variables, then the schema."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from common.errors import UserError
from engine.config.document import Document, KeyPath, Origin, dotted, merge, nearest_origin, parse_yaml, read_document, shown
from engine.config.errors import user_error
from engine.config.schema import RunConfig
from engine.config.schemas import SCHEMAS
from engine.config.suggest import did_you_mean
from engine.config.variables import interpolate

OVERRIDE = re.compile(r"[^\s.=]+(\.[^\s.=]+)*")


@dataclass(frozen=True)
class LoadedConfig:
    """A checked config and where each of its keys was written."""

    config: RunConfig
    origins: Mapping[KeyPath, Origin]

    def sources(self, key: str) -> list[str]:
        """Files (or --set) that wrote a top-level key or anything below it, the last to be read last; empty for a default."""
        return list(dict.fromkeys(origin.source for path, origin in self.origins.items() if path[:1] == (key,)))


def load_config(path: Path, overrides: Sequence[str] = (), task: str | None = None) -> LoadedConfig:
    """Read, compose and check a config.

    Args:
        path: the run's YAML file.
        overrides: `a.b=c` texts, c in YAML; later ones win.
        task: the task asked for; None takes the file's own.

    Raises:
        UserError: one line for every fault, each naming the file that the key was written in.
    """
    document = _with_includes(path, ())
    for override in overrides:
        merge(document, _override(override, document.values))
    document = interpolate(document, os.environ)
    schema = _schema(document, task)
    try:
        return LoadedConfig(schema.model_validate(document.values), document.origins)
    except ValidationError as error:
        raise user_error(error, schema, document.values, document.origins) from error


def _with_includes(path: Path, chain: tuple[Path, ...]) -> Document:
    """A file laid over the files that it includes."""
    here = path.resolve()
    if here in chain:
        circle = " -> ".join(shown(item) for item in (*chain[chain.index(here) :], here))
        raise UserError(f"{shown(path)}: include goes in a circle: {circle}")
    if not here.is_file():
        known = [item.name for item in here.parent.glob("*.y*ml")] if here.parent.is_dir() else []
        by = f"{shown(chain[-1])}: include names a file that does not exist, {shown(path)}." if chain else f"{shown(path)}: no such file."
        raise UserError(by + did_you_mean(here.name, known))
    own = read_document(here)
    include = own.values.pop("include", None) or []
    origin = nearest_origin(own.origins, ("include",))
    own.origins = {key: item for key, item in own.origins.items() if key[:1] != ("include",)}
    names = [include] if isinstance(include, str) else include
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(origin.problem("include must be a file name or a list of file names."))
    composed = Document()
    for name in names:
        merge(composed, _with_includes(here.parent / name, (*chain, here)))
    merge(composed, own)
    return composed


def _override(text: str, values: Mapping[str, Any]) -> Document:
    """One `--set` as a document of a single key."""
    name, separator, written = text.partition("=")
    if not separator or not OVERRIDE.fullmatch(name):
        raise UserError(f"--set {text}: must be KEY=VALUE with a dotted key, for example --set optimizer.lr=1e-4.")
    keys = tuple(name.split("."))
    if keys[0] == "include":
        raise UserError("--set include=...: files cannot be included from the command line; write a config that includes them.")
    around: Any = values
    for depth, key in enumerate(keys):
        if isinstance(around, list):
            raise UserError(f"--set {text}: {dotted(keys[:depth])} is a list; set it as a whole.")
        around = around.get(key) if isinstance(around, Mapping) else None
    value, _ = parse_yaml(written, f"--set {name}")
    for key in reversed(keys):
        value = {key: value}
    origin = Origin("--set")
    return Document(value, {keys[: depth + 1]: origin for depth in range(len(keys))})


def _schema(document: Document, task: str | None) -> type[RunConfig]:
    """The schema of the task, which must be the same on the command line and in the file."""
    written = document.values.get("task")
    origin = nearest_origin(document.origins, ("task",))
    if written is None and task is None:
        raise UserError(origin.problem(f"task is missing; it is one of {', '.join(SCHEMAS)}."))
    if written is not None and written not in SCHEMAS:
        raise UserError(origin.problem(f'task is "{written}"; it is one of {", ".join(SCHEMAS)}.{did_you_mean(str(written), SCHEMAS)}'))
    if task is not None and task not in SCHEMAS:
        raise UserError(f"--task {task}: not a task; it is one of {', '.join(SCHEMAS)}.{did_you_mean(task, SCHEMAS)}")
    if task is not None and written is not None and task != written:
        raise UserError(origin.problem(f"task is {written}, but --task is {task}."))
    document.values["task"] = name = task or written
    document.origins.setdefault(("task",), Origin("--task"))
    return SCHEMAS[str(name)]
