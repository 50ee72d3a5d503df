"""MVP through the engine: a recipe trains in two stages, finds regions for phrases and reports; what does not fit is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from dataset.shapeworld_phrases import write_phrase_data
from engine.config.loader import load_config
from engine.config.validate import validate_run
from small_run import curve, pretrain_settings, run, write_config, write_data

OBJECTIVES = {"itc": 1, "itm": 1, "mlm": 1, "concepts": 1, "phrases": 1, "phrase_grounding": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_data(tmp_path_factory.mktemp("data"))
    write_phrase_data(folder, 3, {"train": 24, "val": 6, "test": 6}, 32)
    return folder


def settings_for(data: Path, steps: int = 2, **objectives: int) -> dict[str, Any]:
    settings = pretrain_settings(data, steps)
    stream = {
        "kind": "concepts",
        "shards": str(data / "shards/concepts-*.tar"),
        "batch_size": 8,
        "groups": 2,
        "objectives": OBJECTIVES | objectives,
        "phrases": {"vocabulary": str(data / "phrases.json")},
        "regions": {"source": "both", "grid": [2]},
    }
    model = settings["model"] | {"mvp": {"vision_layers": 1, "vocab_size": 900, "phrases": 500, "learning": {"grounding": "hard"}}}
    probe = {"file": str(data / "phrases_val.json"), "image_root": str(data / "images")}
    return settings | {"model": model, "streams": {"concepts": stream}, "evaluation": {"phrases": probe}}


@pytest.mark.slow
def test_two_stages_train_and_phrases_are_measured_and_drawn(data: Path, tmp_path: Path) -> None:
    first = settings_for(data, itm=0, mlm=0, phrase_grounding=0)
    assert run("pretrain", write_config(tmp_path / "1.yaml", first), tmp_path / "first").returncode == 0
    missing = ["mvp.joint_encoder.*", "mvp.pooler.*", "mvp.itm_head.*", "mvp.mlm_head.*"]
    second = settings_for(data) | {"initialize": {"checkpoint": str(tmp_path / "first"), "allow_missing": missing}}
    done = run("pretrain", write_config(tmp_path / "2.yaml", second), tmp_path / "second")
    assert done.returncode == 0, done.stderr
    assert set(curve(tmp_path / "second")[2]) >= {f"concepts/{name}" for name in OBJECTIVES}
    result = json.loads((tmp_path / "second" / "metrics.json").read_text())
    names = {"phrases/pointing", "phrases/recall_1", "phrases/recall_5", "phrases/recall_10"}
    assert set(result["metrics"]) == set(result["baselines"]["random region"]) == names
    caption = json.loads((data / "phrases_val.json").read_text())[0]["caption"]
    assert caption in (tmp_path / "second" / "report.html").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"mvp": None}}, "kind concepts and model.mvp go together"),
        ({"tokenizer": {"max_tokens": 48}}, "max_positions is 48"),
        ({"model": {"mvp": {"phrases": None}}}, "needs model.mvp.phrases"),
        ({"model": {"mvp": {"vocab_size": 399}}}, "model.mvp.vocab_size is 399"),
        ({"model": {"mvp": {"joint": "cross", "learning": {"grounding_layer": 0}}}}, "joint is cross"),
    ],
)
def test_what_does_not_fit_is_refused(data: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    settings = merged(settings_for(data), change)
    with pytest.raises(UserError, match=message):
        validate_run(load_config(write_config(tmp_path / "c.yaml", settings)).config)


def test_a_vocabulary_of_more_rows_than_the_model_has_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "phrases.json").write_text(json.dumps({"9000": ["bus", "red"]}))
    settings = merged(settings_for(data), {"streams": {"concepts": {"phrases": {"vocabulary": str(tmp_path / "phrases.json")}}}})
    with pytest.raises(UserError, match="need 9001 rows"):
        validate_run(load_config(write_config(tmp_path / "c.yaml", settings)).config)


def test_a_recipe_that_fits_is_ready(data: Path, tmp_path: Path) -> None:
    lines = validate_run(load_config(write_config(tmp_path / "c.yaml", settings_for(data))).config)
    assert any("24 records" in line for line in lines)


def merged(settings: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Settings with some changed, however deep."""
    nested = {key for key, value in change.items() if isinstance(value, dict) and isinstance(settings.get(key), dict)}
    return settings | {key: merged(settings[key], value) if key in nested else value for key, value in change.items()}
