"""A finished config as YAML that can be loaded again, and the JSON Schema of config files for editors."""

from io import StringIO
from typing import Any

from pydantic.json_schema import models_json_schema
from ruamel.yaml import YAML
from ruamel.yaml.representer import SafeRepresenter

from engine.config.loader import LoadedConfig
from engine.config.schema import RunConfig
from engine.config.schemas import SCHEMAS
from engine.config.variables import escape


def config_values(config: RunConfig) -> dict[str, Any]:
    """All settings with their defaults, as plain YAML and JSON values."""
    return config.model_dump(mode="json")


class _Representer(SafeRepresenter):
    """Lists on one line, mappings one key a line."""


_Representer.add_representer(list, lambda writer, values: writer.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True))


def config_yaml(config: RunConfig, loaded: LoadedConfig | None = None) -> str:
    """All settings as YAML; with `loaded` each top-level key has a comment that names the files it came from."""
    writer = YAML(typ="safe", pure=True)
    writer.Representer = _Representer
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # pyright: ignore[reportAttributeAccessIssue]
    writer.width = 120
    writer.allow_unicode = True
    parts = []
    for key, value in escape(config_values(config)).items():
        stream = StringIO()
        writer.dump({key: value}, stream)
        comment = f"# {', '.join(loaded.sources(key)) or 'default'}\n" if loaded is not None else ""
        parts.append(comment + stream.getvalue())
    return "".join(parts)


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of one config file.

    A file may leave keys to the files it includes, so none is required; which are allowed depends on `task`, and without one all
    tasks' are.
    """
    _, schema = models_json_schema([(model, "validation") for model in SCHEMAS.values()], ref_template="#/$defs/{model}")
    definitions = schema["$defs"]
    for definition in definitions.values():
        definition.pop("required", None)
    _relax(definitions)
    references = {}
    for task, model in SCHEMAS.items():
        references[task] = {"$ref": f"#/$defs/{model.__name__}"}
        properties = definitions[model.__name__]["properties"]
        properties["include"] = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
        properties["include"]["description"] = "Files that this one is laid over, relative to it."
        properties["variables"] = {"type": "object", "description": "Values for ${name} in texts; else the environment's are taken."}
    chosen: dict[str, Any] = {"anyOf": list(references.values())}
    for task, reference in references.items():
        condition = {"properties": {"task": {"const": task}}, "required": ["task"]}
        chosen = {"if": condition, "then": reference, "else": chosen}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Run config",
        "type": "object",
        **chosen,
        "$defs": definitions,
    }


def _relax(item: Any) -> None:
    """Allow `${name}` where a number is asked for, a partial stream without `kind`, and a null stream, all of which a file may hold."""
    if isinstance(item, list):
        for part in item:
            _relax(part)
        return
    if not isinstance(item, dict):
        return
    for part in list(item.values()):
        _relax(part)
    if "discriminator" in item and "oneOf" in item:
        del item["discriminator"]
        item["anyOf"] = [*item.pop("oneOf"), {"type": "null"}]
    if item.get("type") in ("integer", "number", "boolean"):
        plain = {key: item.pop(key) for key in list(item) if key not in ("title", "description", "default")}
        item["anyOf"] = [plain, {"type": "string", "pattern": r"^\$\{[A-Za-z_][A-Za-z0-9_]*\}$"}]
