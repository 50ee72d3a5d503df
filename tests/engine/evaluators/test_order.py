"""Telling the order of events, searching clips, and the runs that do both."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dataset.clips import ClipReader
from dataset.shapeworld_clips import write_clips
from dataset.tokenizers import load_tokenizer
from engine.board import LocalBoard
from engine.config.videos import OrderProbe
from engine.evaluators.base import Inputs
from engine.evaluators.order import OrderEvaluator, _rightness
from engine.interruption import Interruption
from fake_records import encoded
from models.config import ModelConfig
from models.vlm import VisionLanguageModel
from small_run import MODEL, pretrain_settings, run, write_config

CLIPS = MODEL | {"vision": MODEL["vision"] | {"frames": 3}}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> Path:
    out = tmp_path_factory.mktemp("shapeworld")
    for name in ("shards", "images", "grounding_train.json"):
        (out / name).symlink_to(small_data / name)
    write_clips(out, seed=3, train=16, validation=8, test=8, size=32)
    return out


def accuracy(data: Path, file: Path) -> dict[str, float]:
    torch.manual_seed(0)
    model = VisionLanguageModel(ModelConfig.model_validate(CLIPS), ("itc", "itm")).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    inputs = Inputs(load_tokenizer(data / "clips/tokenizer"), 40, 32, torch.device("cpu"), Interruption(LocalBoard()), 3)
    probe = OrderProbe(file=str(file), image_root=str(data / "clips/videos"), batch_size=3)
    return OrderEvaluator(probe, inputs, 3)(model)


def test_who_averages_frames_is_right_about_one_of_two_twins(clips: Path, tmp_path: Path) -> None:
    """Of clips whose three frames are the same ones for both twins, whatever the weights."""
    order = json.loads((clips / "clips/order_val.json").read_text())
    lists = [record | {"image": record["image"].replace(".mp4", ".json")} for record in order]
    _write_lists(clips, order)
    file = tmp_path / "order.json"
    file.write_text(json.dumps(lists))
    found = accuracy(clips, file)
    assert found["acc"] == found["itc_acc"] == 50.0
    assert {f"{kind}_acc" for kind in ("path", "turn", "color", "succession")} < found.keys()


def _write_lists(data: Path, order: list[dict[str, Any]]) -> None:
    """The three frames of each first twin as a list of pictures, and backwards as that of the second."""
    folder = data / "clips/videos"
    for first, second in zip(order[::2], order[1::2], strict=True):
        chosen = ClipReader(3, 10_000).file(folder / first["image"], None)
        listed = [base64.b64encode(encoded(np.asarray(frame))).decode() for frame in chosen]
        (folder / first["image"]).with_suffix(".json").write_text(json.dumps(listed))
        (folder / second["image"]).with_suffix(".json").write_text(json.dumps(listed[::-1]))


def test_equal_scores_count_half() -> None:
    assert _rightness(torch.tensor([2.0, 1.0, 1.0]), torch.tensor([1.0, 1.0, 2.0])).tolist() == [1.0, 0.5, 0.0]


@pytest.mark.slow
def test_clips_images_and_regions_are_learned_together_and_clips_are_searched(clips: Path, tmp_path: Path) -> None:
    settings = pretrain_settings(clips, 3)
    videos = {"kind": "video_text", "shards": str(clips / "clips/shards/*.tar"), "batch_size": 4, "groups": 2}
    videos["clean"] = {"shards": videos["shards"], "probability": 0.5}
    settings |= {"model": CLIPS, "streams": {"videos": videos, **settings["streams"]}, "matching": {"clean_stream": "videos"}}
    settings["model"] = CLIPS | {"vision": CLIPS["vision"] | {"temporal": "attention"}}
    settings["tokenizer"] = {"path": str(clips / "clips/tokenizer"), "max_tokens": 40}
    lists, root = clips / "clips", str(clips / "clips/videos")
    settings["evaluation"] = {
        "videos": {"file": str(lists / "retrieval_val.json"), "image_root": root, "top_k": 4},
        "order": {"file": str(lists / "order_val.json"), "image_root": root},
    }
    done = run("pretrain", write_config(tmp_path / "config.yaml", settings), tmp_path / "run")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run/metrics.json").read_text())
    assert {"videos/ir_r1", "order/acc"} <= result["metrics"].keys()
    del settings["streams"], settings["matching"], settings["evaluation"]
    files = {"train": "retrieval_train", "validation": "retrieval_val", "test": "retrieval_test"}
    data = {split: str(lists / f"{name}.json") for split, name in files.items()} | {"image_root": root, "batch_size": 4}
    tuned = settings | {"task": "retrieval", "data": data, "initialize": {"checkpoint": str(tmp_path / "run")}}
    done = run("retrieval", write_config(tmp_path / "retrieval.yaml", tuned), tmp_path / "tuned")
    assert done.returncode == 0, done.stderr
    assert "ir_r1" in json.loads((tmp_path / "tuned/metrics.json").read_text())["metrics"]
