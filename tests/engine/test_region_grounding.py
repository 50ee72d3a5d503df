"""Grounding by MVP through the engine: what does not fit is refused, the candidate ranked first is the answer, a run trains."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from common.errors import UserError
from dataset.tokenizers import load_tokenizer
from engine.board import LocalBoard
from engine.config.grounding import GroundingConfig
from engine.config.loader import load_config
from engine.config.validate import validate_run
from engine.evaluators import GroundingEvaluator, Inputs, grounding_methods
from engine.interruption import Interruption
from engine.tasks import make_task
from models.vlm import VisionLanguageModel
from small_run import curve, run, task_settings, write_config

MVP = {"vision_layers": 1, "vocab_size": 400}


def settings_for(data: Path, mvp: dict[str, Any] | None = MVP, **method: object) -> dict[str, Any]:
    settings = task_settings("grounding", data, 2)
    return settings | {"model": settings["model"] | {"mvp": mvp}, "method": {"kind": "regions", "layer": 0} | method}


def config_of(settings: dict[str, Any], folder: Path) -> GroundingConfig:
    config = load_config(write_config(folder / "c.yaml", settings)).config
    assert isinstance(config, GroundingConfig)
    return config


@pytest.mark.parametrize(
    ("mvp", "method", "message"),
    [
        (None, {}, "method.kind regions ranks with the encoders of model.mvp. Set model.mvp"),
        (MVP, {"layer": 2}, "method.layer is 2, and the fusion encoder has layers 0 to 0"),
        (MVP | {"vocab_size": 399}, {}, "model.mvp.vocab_size is 399"),
        (MVP | {"region_features": 12}, {}, "pools candidates from pixels"),
        (MVP | {"joint": "cross"}, {}, "only the last layer, -1, is compared"),
        (MVP, {"candidates": {"max_tag_tokens": 49}}, "max_tag_tokens is 49, but model.text.max_positions is 48"),
    ],
)
def test_what_does_not_fit_is_refused(small_data: Path, tmp_path: Path, mvp, method: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config_of(settings_for(small_data, mvp, **method), tmp_path)


@pytest.mark.parametrize("kind", ["boxes", "heat"])
def test_other_methods_are_refused_with_mvp(small_data: Path, tmp_path: Path, kind: str) -> None:
    settings = settings_for(small_data) | {"method": {"kind": kind} | ({"layer": 0} if kind == "heat" else {})}
    with pytest.raises(UserError, match=f"method.kind is {kind}; a model with model.mvp grounds by method.kind regions alone"):
        config_of(settings, tmp_path)


def test_candidates_that_are_missing_are_found_before_training(small_data: Path, tmp_path: Path) -> None:
    settings = settings_for(small_data)
    assert any("scores of regions, cosine" in line for line in validate_run(config_of(settings, tmp_path)))
    records = json.loads((small_data / "grounding_test.json").read_text())
    del records[1]["candidates"]
    (tmp_path / "test.json").write_text(json.dumps(records))
    settings["data"]["test"] = str(tmp_path / "test.json")
    with pytest.raises(UserError, match=r"test.json, record 1 has no candidates"):
        validate_run(config_of(settings, tmp_path))


def test_the_answer_is_the_candidate_with_the_best_score(small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(settings_for(small_data), tmp_path)
    records = json.loads((small_data / "grounding_test.json").read_text())
    meant = iter(record["candidates"].index(record["bbox"]) for record in records)
    wrong = {1, 3}
    seen = iter(range(len(records)))

    def chosen(model: VisionLanguageModel, batch: dict[str, Tensor]) -> Tensor:
        counts = batch["region_mask"].sum(dim=1).tolist()
        return torch.tensor([(next(meant) + (next(seen) in wrong)) % count for count in counts])

    model = make_task(config).model.eval()
    inputs = Inputs(load_tokenizer(small_data / "tokenizer"), 40, 32, torch.device("cpu"), Interruption(LocalBoard()))
    evaluate = GroundingEvaluator(config.expressions(config.data.test), inputs, config.evaluation, config.method)
    assert np.isfinite(list(evaluate(model).values())).all()  # a model's own choice
    with monkeypatch.context() as patch:
        patch.setattr(grounding_methods, "best_regions", chosen)
        metrics = evaluate(model)
    assert metrics["accuracy"] == metrics["accuracy_inclusive"] == pytest.approx(100 * (1 - len(wrong) / len(records)))
    assert metrics["best_candidate/accuracy"] == 100


@pytest.mark.slow
def test_a_run_trains_and_reports_what_no_ranking_can_exceed(small_data: Path, tmp_path: Path) -> None:
    settings = settings_for(small_data, score="linear")
    done = run("grounding", write_config(tmp_path / "c.yaml", settings), tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert {"train/region_ranking", "loss"} <= curve(tmp_path / "run")[2].keys()
    result = json.loads((tmp_path / "run/metrics.json").read_text())
    assert result["metrics"]["accuracy"] <= result["metrics"]["best_candidate/accuracy"] == 100
    assert {"mean box", "largest object"} <= result["baselines"].keys()
    assert records_text(small_data) in (tmp_path / "run/report.html").read_text()


def records_text(data: Path) -> str:
    """A text of the test split that the report shows."""
    return json.loads((data / "grounding_test.json").read_text())[0]["text"]
