"""Initial weights of the visual tokenizer."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from common.errors import UserError
from models.config import Beit2Config, ModelConfig, TextConfig, VisualTokenizerConfig
from models.initial_weights import load_initial_weights
from models.vlm import VisionLanguageModel


def build(weights: str | None) -> VisionLanguageModel:
    config = ModelConfig(
        vision=Beit2Config(image_size=16, patch_size=8, width=16, depth=1, heads=2),
        text=TextConfig(width=16, layers=1, heads=2, intermediate=32, vocab_size=40, max_positions=16),
        visual_tokenizer=VisualTokenizerConfig(width=16, depth=1, heads=2, codes=6, code_width=4, weights=weights),
    )
    return VisionLanguageModel(config, ["mim"])


def official_file(path: Path, *dropped: str) -> Path:
    """A file as Microsoft's, with the decoder that nothing here reads."""
    tokenizer = build(None).visual_tokenizer
    assert tokenizer is not None
    names = {"projection.": "encode_task_layer.", "codebook": "quantize.embedding.weight"}
    state = {"decoder.cls_token": torch.zeros(1, 1, 16), "quantize.cluster_size": torch.zeros(6)}
    for name, parameter in tokenizer.named_parameters():
        official = next((theirs + name.removeprefix(ours) for ours, theirs in names.items() if name.startswith(ours)), name)
        state[official] = torch.full_like(parameter, len(state))
    save_file({name: tensor for name, tensor in state.items() if name not in dropped}, path)
    return path


def test_a_published_tokenizer_fills_ours(tmp_path: Path) -> None:
    file = official_file(tmp_path / "vqkd.safetensors")
    model = build(str(file))
    filled = load_initial_weights(model)
    assert filled == {name for name, _ in model.named_parameters() if name.startswith("visual_tokenizer.")}
    assert len({model.get_parameter(name).flatten()[0].item() for name in filled}) == len(filled)


def test_a_tokenizer_without_weights_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.visual_tokenizer\.weights is not set"):
        load_initial_weights(build(None))


def test_half_a_tokenizer_is_refused(tmp_path: Path) -> None:
    file = official_file(tmp_path / "vqkd.safetensors", "encode_task_layer.2.weight")
    with pytest.raises(UserError, match=r"lacks 1 tensors .* visual_tokenizer\.projection\.2\.weight"):
        load_initial_weights(build(str(file)))
