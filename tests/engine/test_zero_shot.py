"""Evaluation without training: a pre-training checkpoint of any family, at any resolution."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import Retrieval as retrieval_script
from common.errors import UserError
from engine.config.loader import load_config
from engine.config.validate import validate_run
from models.config import ModelConfig
from models.vlm import HEADS, VisionLanguageModel
from small_run import MODEL, task_settings, write_config

SWIN = {"kind": "swin", "image_size": 32, "patch_size": 4, "embed_dim": 8, "width": 16, "depths": [1, 1], "heads": [1, 2], "window": 2}
CLIP = {"kind": "clip_vit", "image_size": 32, "patch_size": 8, "width": 16, "depth": 1, "heads": 2, "intermediate": 32, "local_depth": 1}
FAMILIES = {
    "x2vlm": (MODEL["vision"], {"image_size": 64}),
    "xvlm": (SWIN, {"image_size": 64, "window": 4}),
    "xvlm_clip": (CLIP, {"image_size": 48}),
}
"""The vision encoder of a checkpoint, and what another resolution changes of it."""


def settings_of(data: Path, vision: dict[str, Any], checkpoint: Path) -> dict[str, Any]:
    settings = task_settings("retrieval", data, 0)
    settings["model"] = MODEL | {"vision": vision}
    settings["data"]["train"] = "absent.json"  # nothing is trained, so nothing is read
    return settings | {"initialize": {"checkpoint": str(checkpoint)}, "evaluation": {"top_k": 4}}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_is_evaluated_at_another_resolution_without_training(family: str, small_data: Path, tmp_path: Path) -> None:
    vision, change = FAMILIES[family]
    torch.manual_seed(0)
    model = VisionLanguageModel(ModelConfig.model_validate(MODEL | {"vision": vision}), HEADS)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, tmp_path / "model.safetensors")
    file = write_config(tmp_path / "c.yaml", settings_of(small_data, vision | change, tmp_path / "model.safetensors"))
    config = load_config(file).config
    assert any("resized" in line for line in validate_run(config))
    retrieval_script.main(config, tmp_path / "run")  # pyright: ignore[reportArgumentType]
    result = json.loads((tmp_path / "run/metrics.json").read_text())
    assert {"tr_r1", "ir_r1", "itc_r_mean"} <= result["metrics"].keys()
    assert (result["step"], result["best_step"], result["records_read"]) == (0, None, 0)
    assert "resized" in (tmp_path / "run/log.txt").read_text()
    assert "rank 1" in (tmp_path / "run/report.html").read_text().lower()


def test_a_run_that_trains_needs_its_training_file(small_data: Path, tmp_path: Path) -> None:
    settings = settings_of(small_data, MODEL["vision"], tmp_path)
    settings["schedule"]["steps"] = 3
    del settings["initialize"]
    with pytest.raises(UserError, match=r"absent\.json does not exist"):
        validate_run(load_config(write_config(tmp_path / "c.yaml", settings)).config)
