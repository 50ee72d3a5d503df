"""The JSON Schema that editors use."""

import json
from pathlib import Path
from typing import Any

from engine.cli import main
from engine.config.render import json_schema


def objects(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: definition for name, definition in schema["$defs"].items() if definition.get("type") == "object"}


def test_schema_is_json_and_rejects_unknown_keys(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    assert main(["schema", "--out", str(file)]) == 0
    schema = json.loads(file.read_text())
    assert schema == json_schema()
    definitions = objects(schema)
    assert {"PretrainConfig", "RetrievalConfig", "GroundingConfig", "RegionTextStream", "Beit2Config"} <= set(definitions)
    assert all(definition["additionalProperties"] is False for definition in definitions.values())


def test_schema_fits_one_file_of_several(tmp_path: Path) -> None:
    definitions = objects(json_schema())
    assert all("required" not in definition for definition in definitions.values())  # another file may have the key
    for name in ("PretrainConfig", "RetrievalConfig", "GroundingConfig"):
        assert {"include", "variables", "optimizer"} <= set(definitions[name]["properties"])


def test_schema_explains_settings() -> None:
    assert definitions_text("EngineSettings", "max_bad_share").startswith("The run stops")


def definitions_text(name: str, key: str) -> str:
    return json_schema()["$defs"][name]["properties"][key]["description"]
