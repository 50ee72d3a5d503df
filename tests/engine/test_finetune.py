"""Fine-tuning runs from end to end: the best weights are chosen on validation, the test split is reported once."""

import json
from pathlib import Path

import pytest

from small_run import curve, pretrain_settings, run, task_settings, write_config


@pytest.fixture(scope="module")
def pretrained(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    settings = pretrain_settings(small_data, 3)
    settings["evaluation"] = {
        "retrieval": {"file": str(small_data / "retrieval_val.json"), "image_root": str(small_data / "images"), "top_k": 4},
        "grounding": {"file": str(small_data / "grounding_val.json"), "image_root": str(small_data / "images")},
    }
    settings["loggers"] = {"tensorboard": True}
    settings["engine"] |= {"precision": "bf16"}
    done = run("pretrain", write_config(folder / "config.yaml", settings), folder / "run")
    assert done.returncode == 0, done.stderr
    return folder / "run"


def test_pretraining_leaves_everything_a_run_promises(pretrained: Path) -> None:
    for name in ("config.yaml", "environment.json", "metrics.jsonl", "metrics.json", "report.html", "log.txt", "checkpoints/latest"):
        assert (pretrained / name).is_file(), name
    assert list((pretrained / "tensorboard").glob("events*"))
    result = json.loads((pretrained / "metrics.json").read_text())
    assert {"retrieval/tr_r1", "grounding/accuracy"} <= result["metrics"].keys()
    assert {"chance", "largest object"} <= result["baselines"].keys()
    assert "<img" in (pretrained / "report.html").read_text()


@pytest.mark.parametrize(
    ("task", "number"), [("retrieval", "r_mean"), ("grounding", "accuracy"), ("vqa", "vqa_accuracy"), ("captioning", "cider_words")]
)
def test_finetuning_reports_the_weights_that_did_best_on_validation(
    small_data: Path, pretrained: Path, tmp_path: Path, task: str, number: str
) -> None:
    settings = task_settings(task, small_data, 4) | {"initialize": {"checkpoint": str(pretrained)}}
    settings["engine"] |= {"evaluate_every": 2}
    done = run(task, write_config(tmp_path / "config.yaml", settings), tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "ignored, this model has no such part" in done.stderr  # the report of what the checkpoint held
    result = json.loads((tmp_path / "run/metrics.json").read_text())
    validation = curve(tmp_path / "run", "validation")
    assert set(validation) == {2, 4}
    assert validation[result["best_step"]][number] == max(numbers[number] for numbers in validation.values())
    assert number in result["metrics"]
    if task == "captioning":
        images = json.loads((small_data / "retrieval_test.json").read_text())
        written = json.loads((tmp_path / "run/captions.json").read_text())
        assert len(written) == len(images) == len({caption["image_id"] for caption in written})
        assert "Captions</h2>" in (tmp_path / "run/report.html").read_text()
        return
    if task == "vqa":
        asked = json.loads((small_data / "vqa_test.json").read_text())
        written = json.loads((tmp_path / "run/vqa_result.json").read_text())
        assert [answer["question_id"] for answer in written] == [question["question_id"] for question in asked]
