"""Tags from models: what they are given, and what they say."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from ruamel.yaml import YAML
from safetensors.torch import save_file

from common.errors import UserError
from engine.tagging import ClassifierTagger, ZeroShotTagger
from fake_records import encoded, picture, small_tokenizer
from models.config import ModelConfig
from models.vlm import VisionLanguageModel
from small_run import MODEL


def test_a_classifier_names_its_likeliest_classes(tmp_path: Path) -> None:
    model: Any = timm.create_model("resnet10t", pretrained=False, num_classes=3)
    torch.nn.init.zeros_(model.fc.weight)
    model.fc.bias.data = torch.tensor([0.0, 2.0, 1.0])
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet10t", "num_classes": 3}))
    tagger = ClassifierTagger(f"local-dir:{tmp_path}", ["cat", "dog", "bus"], top=2)
    assert tagger(encoded(picture(0))) == ["dog", "bus"]
    with pytest.raises(UserError, match="names 1 classes"):
        ClassifierTagger(f"local-dir:{tmp_path}", ["cat"], top=2)
    with pytest.raises(UserError, match="not those of ImageNet"):
        ClassifierTagger(f"local-dir:{tmp_path}", None, top=2)


def test_a_dual_encoder_ranks_words_by_their_features(tmp_path: Path) -> None:
    small_tokenizer(tmp_path / "tokenizer")
    config = {
        "task": "retrieval",
        "model": MODEL,
        "tokenizer": {"path": str(tmp_path / "tokenizer"), "max_tokens": 20},
        "data": {"train": "t", "validation": "v", "test": "e", "image_root": ".", "batch_size": 2},
        "optimizer": {"lr": 1e-3},
        "schedule": {"steps": 1, "warmup_steps": 0},
    }
    YAML(typ="safe").dump(config, tmp_path / "config.yaml")
    torch.manual_seed(0)
    model = VisionLanguageModel(ModelConfig.model_validate(MODEL), ["itc"]).eval()
    folder = tmp_path / "checkpoints" / "best"
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    tagger = ZeroShotTagger(tmp_path, ["circle", "square", "star"], top=2)
    found = tagger(encoded(picture(1)))
    scores = dict(zip(tagger.words, (tagger.features @ _features(tagger, 1)).tolist(), strict=True))
    assert found == sorted(scores, key=scores.__getitem__, reverse=True)[:2]


@torch.no_grad()
def _features(tagger: ZeroShotTagger, number: int) -> torch.Tensor:
    from PIL import Image

    from dataset.transforms import squash

    pixels = torch.tensor(squash(Image.fromarray(picture(number)), tagger.size)).permute(2, 0, 1)[None]
    return tagger.model.image_features(tagger.model.encode_images(pixels)[:, 0])[0]
