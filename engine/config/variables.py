"""`${name}` in string values: from `variables`, else from the environment."""

import re
from collections.abc import Mapping
from typing import Any

from common.errors import UserError
from engine.config.document import Document, KeyPath, Origin, describe, dotted, nearest_origin
from engine.config.suggest import did_you_mean

REFERENCE = re.compile(r"(\$?)\$\{([^}]*)\}")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class _Unresolved(Exception):
    """A reference that leads nowhere; the message says why."""


class _Variables:
    def __init__(self, values: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self.values = values
        self.environment = environment

    def expand(self, text: str, active: tuple[str, ...] = ()) -> Any:
        """A text with its references replaced. A text that is one reference alone takes the variable's value as it is."""
        whole = REFERENCE.fullmatch(text)
        if whole and not whole[1]:
            return self.value(whole[2], active)
        return REFERENCE.sub(lambda found: found[0][1:] if found[1] else self.text(found[2], active), text)

    def text(self, name: str, active: tuple[str, ...]) -> str:
        value = self.value(name, active)
        if isinstance(value, (dict, list)) or value is None:
            raise _Unresolved(f"${{{name}}} is {describe(value)} and cannot stand inside a text")
        return value if isinstance(value, str) else describe(value)

    def value(self, name: str, active: tuple[str, ...]) -> Any:
        if not NAME.fullmatch(name):
            raise _Unresolved(f"${{{name}}} is not a reference to a variable (write $${{...}} for the text itself)")
        if name in active:
            raise _Unresolved(f"${{{name}}} refers to itself through {' -> '.join((*active, name))}")
        if name in self.values:
            value = self.values[name]
            return self.expand(value, (*active, name)) if isinstance(value, str) else value
        if name in self.environment:
            return self.environment[name]
        hint = did_you_mean(name, self.values) or f" Add --set variables.{name}=..."
        raise _Unresolved(f"${{{name}}} is neither under variables nor in the environment.{hint}")


def interpolate(document: Document, environment: Mapping[str, str]) -> Document:
    """Replace every reference and drop `variables`. `$${name}` stands for the text `${name}`.

    Raises:
        UserError: one line for every reference that cannot be resolved, naming file and key.
    """
    values = dict(document.values)
    variables = values.pop("variables", None) or {}
    if not isinstance(variables, dict):
        raise UserError(nearest_origin(document.origins, ("variables",)).problem("variables must be a mapping of names to values."))
    problems: list[str] = []
    resolved = _walk(values, (), _Variables(variables, environment), document.origins, problems)
    if problems:
        raise UserError("\n".join(problems))
    return Document(resolved, {path: origin for path, origin in document.origins.items() if path[:1] != ("variables",)})


def escape(value: Any) -> Any:
    """The reverse for finished values: texts that look like references are marked to be taken as they are."""
    if isinstance(value, dict):
        return {key: escape(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [escape(item) for item in value]
    return REFERENCE.sub(lambda found: "$" + found[0], value) if isinstance(value, str) else value


def _walk(value: Any, path: KeyPath, variables: _Variables, origins: Mapping[KeyPath, Origin], problems: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _walk(item, (*path, key), variables, origins, problems) for key, item in value.items()}
    if isinstance(value, list):
        return [_walk(item, (*path, position), variables, origins, problems) for position, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    try:
        return variables.expand(value)
    except _Unresolved as error:
        problems.append(nearest_origin(origins, path).problem(f"{dotted(path)}: {error}"))
        return value
