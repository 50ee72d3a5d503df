"""What is reported of grounding by heat: three answers, guesses beside them, splits, and pictures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from common.errors import UserError
from dataset.batches import MixedBatches
from dataset.tasks.expressions import Expressions
from dataset.tokenizers import load_tokenizer
from engine.board import LocalBoard
from engine.config.grounding import GroundingConfig, HeatMethod
from engine.config.loader import load_config
from engine.config.schema import GroundingEvaluation
from engine.config.validate import validate_run
from engine.evaluators import GroundingEvaluator, Inputs, grounding_methods
from engine.interruption import Interruption
from engine.tasks import make_task, open_streams
from models.config import ModelConfig
from models.vlm import VisionLanguageModel
from small_run import MODEL, task_settings, write_config

SIDE = 32


@pytest.fixture(scope="module")
def model() -> VisionLanguageModel:
    torch.manual_seed(0)
    return VisionLanguageModel(ModelConfig.model_validate(MODEL), ["itc", "itm"]).eval()


def evaluator(data: Path, *files: str) -> GroundingEvaluator:
    inputs = Inputs(load_tokenizer(data / "tokenizer"), 24, SIDE, torch.device("cpu"), Interruption(LocalBoard()))
    names = files or (str(data / "grounding_test.json"),)
    return GroundingEvaluator(Expressions(names, data / "images"), inputs, GroundingEvaluation(batch_size=4), HeatMethod(layer=0))


def show_truth(monkeypatch: pytest.MonkeyPatch, data: Path, wrong: int = 0) -> None:
    """In the place of a model's heat, that of the true boxes; for the first `wrong` expressions all but that."""
    records = iter(json.loads((data / "grounding_test.json").read_text()))
    count = iter(range(1000))

    def heat(model: Any, images: Tensor, ids: Tensor, mask: Tensor, layer: int) -> Tensor:
        maps = torch.zeros(len(images), SIDE, SIDE)
        for row in maps:
            x, y, w, h = next(records)["bbox"]
            row[y : y + h, x : x + w] = 1.0
            if next(count) < wrong:
                row[:] = 1.0 - row
        return maps

    monkeypatch.setattr(grounding_methods, "heat_maps", heat)


def test_heat_on_the_true_box_is_right_in_all_ways(small_data: Path, model: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    show_truth(monkeypatch, small_data)
    metrics = evaluator(small_data)(model)
    assert metrics["accuracy"] == metrics["accuracy_inclusive"] == metrics["mean_iou"] * 100 == 100
    assert metrics["heat_box/accuracy"] == 100
    assert metrics["heat_box/mean_iou"] > 0.99
    assert 0.5 < metrics["segmentation/mean_iou"] < 0.99  # a box is not the mask of a star


def test_guesses_stand_beside_boxes_and_masks(small_data: Path) -> None:
    guesses = evaluator(small_data).baselines()
    assert {"centre box", "largest object"} <= guesses.keys()
    for guess in ("centre box", "largest object"):
        assert 0 < guesses[guess]["segmentation/mean_iou"] < guesses[guess]["mean_iou"] + 0.2
    assert "mean box" not in guesses  # no box of training is looked at


def test_splits_are_reported_apart(small_data: Path, tmp_path: Path, model: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    records = json.loads((small_data / "grounding_test.json").read_text())
    for number, record in enumerate(records):
        record["split"] = "testA" if number < 2 else "testB"
    (tmp_path / "split.json").write_text(json.dumps(records))
    show_truth(monkeypatch, small_data, wrong=2)
    found = evaluator(small_data, str(tmp_path / "split.json"))
    metrics, guesses = found(model), found.baselines()
    assert metrics["testB/accuracy"] == metrics["best_candidate/accuracy"] == 100 > metrics["accuracy"]
    assert {"testA/accuracy", "testA/heat_box/accuracy", "testB/segmentation/mean_iou"} <= metrics.keys()
    assert {"accuracy", "testA/accuracy", "testB/mean_iou"} <= guesses["largest object"].keys()


def test_pictures_show_right_and_wrong_answers_with_their_heat(small_data: Path, model: VisionLanguageModel) -> None:
    found = evaluator(small_data)
    found(model)
    found.overlaps = np.array([1.0] * (len(found.data) - 1) + [0.2])
    assert found._shown(4) == [0, (len(found.data) - 2) // 2, len(found.data) - 2, len(found.data) - 1]
    panels = found.panels(model, 4)
    assert len(panels.boxes) == len(panels.attention) == 4
    assert all(panel.heat is not None and panel.heat.shape == (4, 4) for panel in panels.boxes)


def weak(data: Path, tmp_path: Path, method: dict[str, Any]) -> GroundingConfig:
    """A run whose training records hold no box."""
    settings = task_settings("grounding", data, 2) | {"method": method}
    records = json.loads((data / "grounding_train.json").read_text())
    (tmp_path / "pairs.json").write_text(json.dumps([{"image": record["image"], "text": record["text"]} for record in records]))
    settings["data"]["train"] = str(tmp_path / "pairs.json")
    config = load_config(write_config(tmp_path / "weak.yaml", settings)).config
    assert isinstance(config, GroundingConfig)
    return config


def test_weak_training_learns_from_pairs_and_sees_no_box(small_data: Path, tmp_path: Path) -> None:
    config = weak(small_data, tmp_path, {"kind": "heat", "layer": 0})
    task = make_task(config)
    streams = open_streams(config, load_tokenizer(small_data / "tokenizer"))
    batch = next(iter(MixedBatches(streams, 1, 0, 1, 1)[0].values())).tensors
    assert not {"target_box", "is_image", "box"} & batch.keys()
    losses = task({"train": batch})
    assert losses.keys() == {"train/itc", "train/itm"} == task.weights.keys()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert any("expressions" in line for line in validate_run(config))


def test_a_layer_that_is_not_there_is_an_error_before_training(small_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"method.layer is -3, and the fusion encoder has layers 0 to 0"):
        weak(small_data, tmp_path, {"kind": "heat"})
