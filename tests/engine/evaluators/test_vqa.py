"""Answers of a held-out set, in every mode, in the file that the server takes, and on the report."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from common.errors import UserError
from dataset.tasks.vqa_files import labels_of
from dataset.tokenizers import load_tokenizer
from engine.board import LocalBoard
from engine.config.loader import load_config
from engine.config.schemas import SCHEMAS
from engine.config.validate import validate_run
from engine.config.vqa import VqaConfig
from engine.evaluators import Inputs
from engine.evaluators.vqa import VqaEvaluator
from engine.interruption import Interruption
from models.answering import AnsweringModel
from played_evaluation import play_evaluation
from small_run import task_settings, write_config

MODES = ("rank", "generate", "classify")


def config_of(small_data: Path, mode: str, **data: Any) -> VqaConfig:
    settings = task_settings("vqa", small_data, 2)
    settings["evaluation"] = {"mode": mode, "batch_size": 5, "top_k": 4, "beams": 2, "max_answer_tokens": 3}
    settings["data"] |= data
    config = SCHEMAS["vqa"].model_validate(settings)
    assert isinstance(config, VqaConfig)
    return config


def inputs_of(config: VqaConfig, interruption: Interruption | None = None) -> Inputs:
    size = config.model.vision.image_size
    return Inputs(load_tokenizer(config.tokenizer.path), 40, size, torch.device("cpu"), interruption or Interruption(LocalBoard()))


def model_of(config: VqaConfig) -> AnsweringModel:
    torch.manual_seed(0)
    return AnsweringModel(config.model, len(labels_of(config.data)) if config.evaluation.mode == "classify" else None).eval()


@pytest.mark.parametrize("mode", MODES)
def test_every_question_is_answered_and_written(mode: str, small_data: Path, tmp_path: Path) -> None:
    config = config_of(small_data, mode)
    evaluator = VqaEvaluator("test", config, inputs_of(config), guess="yes")
    model = model_of(config)
    numbers = evaluator(model)
    listed = set(json.loads((small_data / "vqa_answers.json").read_text()))
    assert all(answer in listed for answer, _ in evaluator.predicted) or mode == "generate"
    given = [question.answers[0] for question in evaluator.data.questions]
    right = sum(answer == truth for (answer, _), truth in zip(evaluator.predicted, given, strict=True))
    assert numbers["exact_match"] == pytest.approx(100 * right / len(given))
    assert evaluator.baselines()["majority answer"]["exact_match"] == pytest.approx(100 * given.count("yes") / len(given))
    evaluator.write(tmp_path / "result.json")
    assert len(json.loads((tmp_path / "result.json").read_text())) == len(given)
    panels = evaluator.panels(model, 3).answers
    assert [panel.image.shape for panel in panels] == [(32, 32, 3)] * 3
    assert all(panel.given and panel.score is not None for panel in panels)


def test_answers_are_the_same_on_one_two_and_three_ranks(small_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(small_data, "rank")
    model = model_of(config)

    def part(interruption: Interruption) -> tuple[dict[str, float], list[tuple[str, float]]]:
        mine = VqaEvaluator("test", config, inputs_of(config, interruption))
        return mine(model), mine.predicted

    ((numbers, answers),) = play_evaluation(1, monkeypatch, part)
    for world in (2, 3):
        for other, found in play_evaluation(world, monkeypatch, part):
            assert other == numbers
            assert [answer for answer, _ in found] == [answer for answer, _ in answers]
            assert [chance for _, chance in found] == pytest.approx([chance for _, chance in answers], rel=1e-5)


def test_secret_answers_give_predictions_and_no_numbers(small_data: Path, tmp_path: Path) -> None:
    secret = [
        {key: value for key, value in record.items() if key != "answer"}
        for record in json.loads((small_data / "vqa_test.json").read_text())
    ]
    (tmp_path / "test.json").write_text(json.dumps(secret))
    config = config_of(small_data, "rank", test=str(tmp_path / "test.json"))
    evaluator = VqaEvaluator("test", config, inputs_of(config), guess="yes")
    assert evaluator(model_of(config)) == {}
    assert evaluator.baselines() == {}
    assert len(evaluator.predicted) == len(secret)


@pytest.mark.parametrize("mode", MODES)
def test_validate_opens_everything(mode: str, small_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = "\n".join(validate_run(config_of(small_data, mode)))
    assert "data.test: 12 questions with answers" in lines
    assert "23 answers" in lines
    warned = validate_run(config_of(small_data, mode, validation=None, expected={"test": 13157}))
    assert any("data.validation: none" in line for line in warned)
    assert "vqa_test.json: 12 questions, the published data has 13,157" in caplog.text
    (tmp_path / "broken.json").write_text('[{"question": "what?"}]')
    with pytest.raises(UserError, match=r"broken\.json, record 0: none of the known layouts"):
        validate_run(config_of(small_data, mode, test=str(tmp_path / "broken.json")))


def test_ranking_without_a_list_is_refused(small_data: Path, tmp_path: Path) -> None:
    settings = task_settings("vqa", small_data, 2)
    del settings["data"]["answers"]
    with pytest.raises(UserError, match=r"evaluation\.mode rank needs data\.answers"):
        load_config(write_config(tmp_path / "config.yaml", settings))


def test_a_class_has_one_number(small_data: Path, tmp_path: Path) -> None:
    (tmp_path / "answers.json").write_text('["yes", "no", "yes"]')
    with pytest.raises(UserError, match='"yes" is listed twice'):
        labels_of(config_of(small_data, "classify", answers=str(tmp_path / "answers.json")).data)


def test_answers_that_the_tokenizer_cannot_tell_apart_are_named(small_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "answers.json").write_text('["yes", "0", "1", "no"]')  # no digit is in the vocabulary
    config = config_of(small_data, "rank", answers=str(tmp_path / "answers.json"))
    VqaEvaluator("test", config, inputs_of(config))
    assert 'first "0" and "1"' in caplog.text
