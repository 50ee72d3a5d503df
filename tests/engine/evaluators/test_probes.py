"""Runs on known data sets: a probe, a task of GLUE with its submission, and what is told apart without training."""

import json
from pathlib import Path
from typing import Any

import pytest

import Classification as classification_script
import ZeroShot as zero_shot_script
from common.errors import UserError
from dataset.shapeworld_probes import write_probes
from engine.config.loader import load_config
from engine.config.validate import validate_run
from small_run import MODEL, curve, write_config


@pytest.fixture(scope="module")
def probes(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probes")
    write_probes(folder, 3, {"train": 24, "val": 6, "test": 6}, 32)
    for name in ("images", "tokenizer"):
        (folder / name).symlink_to(small_data / name)
    return folder


def settings(folder: Path, task: str, **more: Any) -> dict[str, Any]:
    training = {"optimizer": {"lr": 1e-3}, "schedule": {"steps": 2, "warmup_steps": 1}} if task == "classification" else {}
    return {
        "task": task,
        "model": MODEL,
        "tokenizer": {"path": str(folder / "tokenizer"), "max_tokens": 24},
        "engine": {"workers": 0, "log_every": 1, "threads": 1},
        "loggers": {"tensorboard": False},
        **training,
        **more,
    }


def glue(folder: Path, task: str, head: dict[str, Any]) -> dict[str, Any]:
    data = {"source": {"kind": "glue", "task": task, "root": str(folder / "glue")}, "test": "heldout", "batch_size": 8}
    return settings(folder, "classification", head={"inputs": "text", **head}, data=data | {"languages": {"secret": {"file": "test"}}})


def run(script: Any, values: dict[str, Any], folder: Path) -> dict[str, Any]:
    config = load_config(write_config(folder / "c.yaml", values)).config
    validate_run(config)
    script.main(config, folder / "run")
    return json.loads((folder / "run/metrics.json").read_text())


def test_a_run_on_a_number_reports_correlations_and_writes_what_glue_takes(probes: Path, tmp_path: Path) -> None:
    result = run(classification_script, glue(probes, "stsb", {"classes": 1, "target": "number"}), tmp_path)
    assert result["metrics"].keys() == {"pearson", "spearman"}
    assert result["baselines"]["mean"] == {"pearson": 0.0, "spearman": 0.0}
    lines = (tmp_path / "run/predictions/STS-B.tsv").read_text().splitlines()
    assert lines[0] == "index\tprediction" and len(lines) == 13
    assert len(json.loads((tmp_path / "run/predictions/test.json").read_text())) == 12


def test_a_run_on_labels_takes_the_scores_of_its_task(probes: Path, tmp_path: Path) -> None:
    values = glue(probes, "cola", {"classes": 2}) | {"schedule": {"kind": "cosine", "steps": 2, "warmup_steps": 1}}
    result = run(classification_script, values, tmp_path)
    assert result["metrics"].keys() == {"matthews"} and result["baselines"]["majority"] == {"matthews": 0.0}
    assert curve(tmp_path / "run", "validation")[2].keys() >= {"matthews"}
    assert {line.split("\t")[1] for line in (tmp_path / "run/predictions/CoLA.tsv").read_text().splitlines()[1:]} <= {"0", "1"}


def test_heads_that_do_not_fit_their_source_are_refused(probes: Path, tmp_path: Path) -> None:
    for head, message in (
        ({"classes": 3}, r"head.classes is 3, but data.source cola has 2"),
        ({"classes": 2, "inputs": "image"}, r"head.inputs is image, but records of data.source have text alone"),
        ({"classes": 1, "target": "number"}, r"head.target number needs head.classes: 1 and no labels; data.source cola has 2"),
    ):
        with pytest.raises(UserError, match=message):
            load_config(write_config(tmp_path / "c.yaml", glue(probes, "cola", head)))


def zero_shot(folder: Path, data: dict[str, Any]) -> dict[str, Any]:
    return settings(folder, "zero_shot", data=data)


def test_classes_are_told_by_their_names_without_training(probes: Path, tmp_path: Path) -> None:
    source = {"kind": "imagefolder", "root": str(probes / "probe_images")}
    result = run(zero_shot_script, zero_shot(probes, {"kind": "classes", "source": source, "templates": ["a {}", "the {}"]}), tmp_path)
    assert result["metrics"].keys() == {"acc", "acc_top5", "mean_per_class"} == result["baselines"]["chance"].keys()
    assert result["step"] == 0
    predictions = json.loads((tmp_path / "run/predictions/test.json").read_text())
    assert len(predictions) == 6 and len(predictions[0]["probabilities"]) == 36


@pytest.mark.parametrize("protocol", ["crop", "region"])
def test_attributes_of_objects_are_ranked_without_training(protocol: str, probes: Path, tmp_path: Path) -> None:
    data = {"kind": "attributes", "annotations": str(probes / "ovad.json"), "image_root": str(probes / "images"), "protocol": protocol}
    result = run(zero_shot_script, zero_shot(probes, data), tmp_path)
    assert {"map", "map_head"} <= result["metrics"].keys() == result["baselines"]["chance"].keys()
    written = json.loads((tmp_path / "run/predictions/attributes.json").read_text())
    assert {len(row) for row in written["scores"]} == {len(written["attributes"])} == {11}


def test_a_wrong_number_of_names_is_an_error(probes: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("ant\nbee\n")
    source = {"kind": "imagefolder", "root": str(probes / "probe_images")}
    values = zero_shot(probes, {"kind": "classes", "source": source, "class_names": str(tmp_path / "names.txt")})
    with pytest.raises(UserError, match=r"names.txt has 2 lines for 36 classes"):
        validate_run(load_config(write_config(tmp_path / "c.yaml", values)).config)
