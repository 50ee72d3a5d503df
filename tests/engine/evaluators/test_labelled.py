"""Evaluation of labels: languages, baselines, predictions, and what a run reports."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import Classification as classification_script
import NLVR as nlvr_script
from dataset.config import LanguageSplit, StatementData
from dataset.shapeworld_statements import write_statements
from dataset.tasks.nlvr import statement_reader
from dataset.tokenizers import load_tokenizer
from engine.board import LocalBoard
from engine.config.loader import load_config
from engine.config.validate import validate_run
from engine.evaluators import HeldOut, Inputs, StatementEvaluator
from engine.interruption import Interruption
from evaluation.report import ReportPanels, write_report
from models.tasks.nlvr import PairModel
from played_evaluation import play_evaluation
from small_run import MODEL, curve, write_config

COUNTS = {"train": 24, "val": 6, "test": 6}
PLAIN = {"crop_scale": None, "flip": 0.0, "rand_augment": False}


@pytest.fixture(scope="module")
def statements(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("statements")
    write_statements(folder, 3, COUNTS, 32)
    for name in ("images", "tokenizer", "shards"):
        (folder / name).symlink_to(small_data / name)
    return folder


class Oracle(PairModel):
    """Knows the truth of each batch that it is shown, but errs on the first record of all."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)


def evaluator(folder: Path, monkeypatch: pytest.MonkeyPatch, interruption: Interruption | None = None) -> StatementEvaluator:
    files = {name: str(folder / f"nlvr_{split}.json") for name, split in (("train", "train"), ("validation", "val"), ("test", "test"))}
    languages = {"id": LanguageSplit(file=files["test"]), "sw": LanguageSplit(file=files["validation"])}
    data = StatementData.model_validate({**files, "image_root": str(folder / "images"), "batch_size": 2, "languages": languages})
    inputs = Inputs(load_tokenizer(folder / "tokenizer"), 24, 32, torch.device("cpu"), interruption or Interruption(LocalBoard()))
    held_out = HeldOut(data, statement_reader, inputs, 4, [1, 1, 0], folder / "predictions")

    def chances(self: StatementEvaluator, model: Any, batch: dict[str, Tensor]) -> Tensor:
        told = torch.where(batch["index"] == 0, 1 - batch["label"], batch["label"])
        return torch.nn.functional.one_hot(told, 2).float()

    monkeypatch.setattr(StatementEvaluator, "_chances", chances)
    return StatementEvaluator("test", held_out)


def test_each_language_has_its_numbers_and_all_have_a_mean(statements: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = evaluator(statements, monkeypatch)
    numbers = found(Oracle())
    right = 100 * 11 / 12  # one of twelve is wrong, and with it one of six sentences
    assert numbers == pytest.approx(
        {
            **dict.fromkeys(("acc", "id/acc", "sw/acc", "mean/acc"), right),
            **dict.fromkeys(("consistency", "id/consistency", "sw/consistency"), 100 * 5 / 6),
        }
    )
    assert found.baselines()["majority"] == pytest.approx({name: 50.0 if name.endswith("acc") else 0.0 for name in numbers})
    lines = (statements / "predictions/test.csv").read_text().splitlines()
    assert len(lines) == 12 and lines[0].startswith("test-0-0-0,")
    assert (statements / "predictions/sw.csv").is_file()


def test_numbers_and_predictions_are_the_same_on_one_two_and_three_ranks(statements: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def part(interruption: Interruption) -> dict[str, float]:
        return evaluator(statements, monkeypatch, interruption)(Oracle())

    (alone,) = play_evaluation(1, monkeypatch, part)
    written = (statements / "predictions/test.csv").read_text()
    for world in (2, 3):
        assert play_evaluation(world, monkeypatch, part) == [alone] * world
        assert (statements / "predictions/test.csv").read_text() == written


def test_the_report_shows_what_was_judged_right_and_wrong(statements: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = evaluator(statements, monkeypatch)
    found(Oracle())
    panels = found.panels(Oracle(), 4).labels
    wrong = [panel for panel in panels if panel.predicted != panel.label]
    assert (len(panels), len(wrong)) == (4, 1)  # there is but one wrong one; right ones take the place of others
    assert {panel.predicted for panel in panels} <= {"True", "False"}
    for panel in panels:
        assert [image.shape for image in panel.images] == [(32, 32, 3)] * 2
        assert panel.text and panel.confidence == 1.0
    page = write_report(statements, ReportPanels(labels=panels)).read_text()
    assert page.count("<br>true: ") == 4
    assert page.count("<b>✗ ") == 1
    assert page.count('alt="Image 2 of') == 4


def settings(folder: Path, task: str, files: str, ending: str) -> dict[str, Any]:
    names = {"train": "train", "validation": "val", "test": "test"}
    data = {name: str(folder / f"{files}_{split}.{ending}") for name, split in names.items()}
    return {
        "task": task,
        "model": MODEL,
        "tokenizer": {"path": str(folder / "tokenizer"), "max_tokens": 24},
        "data": data | {"image_root": str(folder / "images"), "batch_size": 8, "augmentation": PLAIN},
        "optimizer": {"lr": 1e-3},
        "schedule": {"steps": 2, "warmup_steps": 1},
        "engine": {"workers": 0, "log_every": 1, "threads": 1},
        "loggers": {"tensorboard": False},
    }


@pytest.fixture
def nlvr(statements: Path) -> dict[str, Any]:
    return settings(statements, "nlvr", "nlvr", "json")


@pytest.fixture
def entailment(statements: Path) -> dict[str, Any]:
    chosen = settings(statements, "classification", "entailment", "jsonl")
    keys = {"image": "Flickr30K_ID", "text": "sentence2", "label": "gold_label"}
    chosen["data"] |= {"labels": ["contradiction", "neutral", "entailment"], "keys": keys}
    return chosen | {"head": {"classes": 3}}


def test_a_run_on_statements_reports_the_test_split_and_writes_its_predictions(nlvr: dict[str, Any], tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path / "c.yaml", nlvr | {"pair_fusion": "alternating"})).config
    nlvr_script.main(config, tmp_path / "run")  # pyright: ignore[reportArgumentType]
    result = json.loads((tmp_path / "run/metrics.json").read_text())
    assert result["metrics"].keys() == {"acc", "consistency"} == result["baselines"]["majority"].keys()
    assert curve(tmp_path / "run", "validation")[2].keys() >= {"acc"}
    assert len((tmp_path / "run/predictions/test.csv").read_text().splitlines()) == 12
    assert not (tmp_path / "run/predictions/validation.csv").exists()


def test_text_assignment_leaves_weights_that_statements_start_from(nlvr: dict[str, Any], statements: Path, tmp_path: Path) -> None:
    stream = {"kind": "image_text", "shards": str(statements / "shards/images-*.tar"), "batch_size": 8, "groups": 1}
    before = {key: value for key, value in nlvr.items() if key != "data"} | {"assignment": stream, "pair_fusion": "alternating"}
    config = load_config(write_config(tmp_path / "a.yaml", before)).config
    assert any("text assignment" in line for line in validate_run(config))
    nlvr_script.main(config, tmp_path / "assignment")  # pyright: ignore[reportArgumentType]
    after = nlvr | {
        "pair_fusion": "alternating",
        "initialize": {"checkpoint": str(tmp_path / "assignment"), "allow_missing": ["cls_head*"]},
    }
    lines = validate_run(load_config(write_config(tmp_path / "b.yaml", after)).config)
    assert any("fusion: 48 loaded" in line for line in lines)  # two layers of 26 tensors, but for the keys and values of the second
    assert any("cls_head: 6 newly initialised" in line for line in lines)


def test_a_run_on_entailment_reports_accuracy_and_probabilities(entailment: dict[str, Any], tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path / "c.yaml", entailment)).config
    assert any("data.test: 18 labelled records" in line for line in validate_run(config))
    classification_script.main(config, tmp_path / "run")  # pyright: ignore[reportArgumentType]
    result = json.loads((tmp_path / "run/metrics.json").read_text())
    assert result["baselines"]["majority"]["acc"] == pytest.approx(100 / 3)
    predictions = json.loads((tmp_path / "run/predictions/test.json").read_text())
    assert len(predictions) == 18
    assert predictions[0]["probabilities"].keys() == {"contradiction", "neutral", "entailment"}
