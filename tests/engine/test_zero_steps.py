"""A run of no steps: the starting weights, such as those of a swapped text encoder, are saved and evaluated in each language."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from engine.config.schema import PretrainConfig
from engine.tasks import make_task
from small_run import pretrain_settings, run, saved, write_config


def test_the_start_is_saved_and_evaluated_by_language_before_any_training(small_data: Path, tmp_path: Path) -> None:
    settings = pretrain_settings(small_data, steps=0)
    torch.manual_seed(0)
    old = {name: tensor.clone() for name, tensor in make_task(PretrainConfig.model_validate(settings)).model.state_dict().items()}
    save_file(old, tmp_path / "old.safetensors")
    gallery = str(small_data / "retrieval_val.json")
    settings["initialize"] = {"checkpoint": str(tmp_path / "old.safetensors"), "replace_text": True}
    settings["evaluation"] = {"retrieval": {"file": {"en": gallery, "de": gallery}, "image_root": str(small_data / "images"), "top_k": 2}}
    done = run("pretrain", write_config(tmp_path / "config.yaml", settings), tmp_path / "run")
    assert done.returncode == 0, done.stderr
    kept = saved(tmp_path / "run", 0, "model")
    assert torch.equal(kept["fusion.layers.0.mlp_in.weight"], old["fusion.layers.0.mlp_in.weight"])
    embeddings = "text.backbone.embeddings.word_embeddings.weight"
    assert not torch.equal(kept[embeddings], old[embeddings])
    result = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert result["step"] == 0
    found = result["metrics"]
    assert found["retrieval/en/tr_r1"] == found["retrieval/de/tr_r1"] == found["retrieval/tr_r1"]
    assert "text of the file: " in done.stderr and "the text encoder is replaced" in done.stderr
