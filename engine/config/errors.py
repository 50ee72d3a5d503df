"""Schema faults as lines that a user can act on: file, key, what is wrong, what to write instead."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from common.errors import UserError
from engine.config.document import KeyPath, Origin, describe, dotted, nearest_origin
from engine.config.suggest import choices, did_you_mean, nearest_setting, siblings

PROBLEMS = "setting_problems"
EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping",
    "model": "a mapping",
    "mapping": "a mapping",
}
"""What the first word of a pydantic error type asks for."""
BOUNDS = {
    "greater_than": "greater than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
}


def raise_problems(problems: list[tuple[str, str]]) -> None:
    """From inside a validator: report (key relative to the validated settings, text) pairs, if there are any."""
    if problems:
        raise PydanticCustomError(PROBLEMS, "impossible combination", {"problems": problems})


def user_error(error: ValidationError, schema: type[BaseModel], values: dict[str, Any], origins: Mapping[KeyPath, Origin]) -> UserError:
    """All faults of a config, one line each, in the order of the schema.

    Args:
        error: what pydantic found.
        schema: the class that was asked for.
        values: what was given to it.
        origins: where each key was written.
    """
    lines: dict[KeyPath, list[tuple[KeyPath, str]]] = {}
    for detail in error.errors():
        for path, text in _problems(detail, schema, values):
            lines.setdefault(path, []).append((path, text))
    messages = []
    for path, found in lines.items():
        texts = list(dict.fromkeys(text for _, text in found))
        messages.append(nearest_origin(origins, path).problem(_joined(texts)))
    return UserError("\n".join(dict.fromkeys(messages)))


def _joined(texts: list[str]) -> str:
    """One text for the alternatives of a choice of types: "k must be a number or a list, not x"."""
    parts = [text.partition(", not ") for text in texts]
    if len(texts) == 1 or not all(separator for _, separator, _ in parts):
        return texts[0]
    return parts[0][0] + "".join(f" or {head.split(' must be ', 1)[-1]}" for head, _, _ in parts[1:]) + ", not " + parts[0][2]


def _problems(detail: ErrorDetails, schema: type[BaseModel], values: dict[str, Any]) -> list[tuple[KeyPath, str]]:
    path = _written_path(detail, values)
    name, kind, context = dotted(path), detail["type"], detail.get("ctx", {})
    if kind == PROBLEMS:
        return [((*path, *key.split(".")), text) for key, text in context["problems"]]
    if kind == "extra_forbidden":
        return [(path, f"{name} is not a setting.{_suggestion(schema, values, path)}")]
    if kind == "missing":
        return [(path, f"{name} is missing.")]
    if kind == "union_tag_not_found":
        tag = str(context["discriminator"]).strip("'")
        return [((*path, tag), f"{name}.{tag} is missing; it is one of {', '.join(choices(schema, values, path, tag))}.")]
    if kind == "union_tag_invalid":
        tag, known = str(context["discriminator"]).strip("'"), [word.strip("' ") for word in context["expected_tags"].split(",")]
        text = f'{name}.{tag} is "{context["tag"]}"; it is one of {", ".join(known)}.{did_you_mean(str(context["tag"]), known)}'
        return [((*path, tag), text)]
    if kind == "value_error":
        text = detail["msg"].removeprefix("Value error, ").rstrip(".") + "."
        return [(path, f"{name}: {text}" if name else text)]
    return [(path, f"{name} must be {_expected(detail)}, not {describe(detail['input'])}.{_near_choice(detail)}")]


def _written_path(detail: ErrorDetails, values: dict[str, Any]) -> KeyPath:
    """Where the fault stands in what was written. Pydantic's own path also names the alternative of a choice that it tried."""
    path: list[str | int] = []
    value: Any = values
    location = detail["loc"]
    for position, part in enumerate(location):
        if (isinstance(value, dict) and part in value) or (isinstance(value, list) and isinstance(part, int) and part < len(value)):
            path.append(part)
            value = value[part]  # pyright: ignore[reportArgumentType, reportCallIssue]
        elif position == len(location) - 1 and detail["type"] in ("missing", "extra_forbidden"):
            path.append(part)
    return tuple(path)


def _suggestion(schema: type[BaseModel], values: dict[str, Any], path: KeyPath) -> str:
    near = nearest_setting(schema, values, path)
    if near:
        return f" Did you mean {dotted(near)}?"
    known = siblings(schema, values, path[:-1])
    where = f" in {dotted(path[:-1])}" if len(path) > 1 else ""
    return f" Known{where}: {', '.join(known)}." if known else ""


def _expected(detail: ErrorDetails) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind in BOUNDS:
        return BOUNDS[kind].format(**context)
    if kind in ("literal_error", "enum"):
        return f"one of {context['expected'].replace(chr(39), '').replace(' or ', ', ')}"
    if kind == "too_short":
        return f"at least {context['min_length']} long"
    if kind == "too_long":
        return f"at most {context['max_length']} long"
    if kind == "finite_number":
        return "a finite number"
    expected = EXPECTED.get(kind.split("_")[0])
    if expected:
        return expected
    return detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")


def _near_choice(detail: ErrorDetails) -> str:
    if detail["type"] != "literal_error" or not isinstance(detail["input"], str):
        return ""
    known = [word.strip("' ") for word in detail.get("ctx", {})["expected"].replace(" or ", ",").split(",")]
    return did_you_mean(detail["input"], known)
