"""Weights from timm's and transformers' layouts, in small local files."""

import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import BertForMaskedLM

from common.errors import UserError
from models.config import Beit2Config, FusionConfig, ModelConfig, TextConfig
from models.initial_weights import load_initial_weights, read_state_dict
from models.text.bert import bert_config
from models.vision.beit2 import Beit2
from models.vlm import VisionLanguageModel

VISION = Beit2Config(image_size=32, patch_size=8, width=16, depth=2, heads=2)
TEXT = TextConfig(width=16, layers=2, heads=2, intermediate=32, vocab_size=30, max_positions=12)


def model_with(vision: Beit2Config = VISION, text: TextConfig = TEXT, copies: list[int] | None = None) -> VisionLanguageModel:
    torch.manual_seed(1)
    fusion = FusionConfig(layers=2, copy_text_layers=copies)
    return VisionLanguageModel(ModelConfig(vision=vision, text=text, fusion=fusion, projection_dim=4), ("itc", "itm", "mlm"))


def beit_file(path: Path, image_size: int = 32) -> tuple[str, dict[str, Tensor]]:
    """A file as self-supervised BEiT-2 checkpoints are: one shared position table, final norm called norm, under the key model."""
    torch.manual_seed(2)
    state = dict(Beit2(VISION.model_copy(update={"image_size": image_size})).backbone.state_dict())
    tables = [key for key in state if key.endswith("relative_position_bias_table")]
    table = torch.randn_like(state[tables[0]])
    state = {key: value for key, value in state.items() if key not in tables}
    state = {key.replace("fc_norm", "norm"): value for key, value in state.items()}
    torch.save({"model": state | {"rel_pos_bias.relative_position_bias_table": table, "head.weight": torch.zeros(3, 16)}}, path)
    return str(path), {"table": table, **state}


def test_a_local_beit_file_fills_the_vision_encoder(tmp_path: Path) -> None:
    source, state = beit_file(tmp_path / "beit.pth")
    model = model_with(vision=VISION.model_copy(update={"weights": source}))
    filled = load_initial_weights(model)
    assert {name for name, _ in model.named_parameters() if name.startswith("vision.")} == filled
    for block in range(2):
        own = model.get_parameter(f"vision.backbone.blocks.{block}.attn.relative_position_bias_table")
        assert torch.equal(own, state["table"])
    assert torch.equal(model.get_parameter("vision.backbone.fc_norm.weight"), state["norm.weight"])


def test_position_tables_of_another_resolution_are_resized(tmp_path: Path) -> None:
    source, state = beit_file(tmp_path / "beit.pth", image_size=48)
    model = model_with(vision=VISION.model_copy(update={"weights": source}))
    load_initial_weights(model)
    own = model.get_parameter("vision.backbone.blocks.1.attn.relative_position_bias_table")
    assert own.shape == (7 * 7 + 3, 2)
    torch.testing.assert_close(own[-3:], state["table"][-3:])  # the class token's rows are kept


def test_a_local_bert_fills_text_fusion_and_head(tmp_path: Path) -> None:
    torch.manual_seed(3)
    source = BertForMaskedLM(bert_config(TEXT.model_copy(update={"layers": 4})))
    source.save_pretrained(tmp_path)
    model = model_with(text=TEXT.model_copy(update={"weights": str(tmp_path)}), copies=[2, 3])
    filled = load_initial_weights(model)
    state = source.state_dict()
    pairs = {
        "text.backbone.encoder.layer.1.intermediate.dense.weight": "bert.encoder.layer.1.intermediate.dense.weight",
        "fusion.layers.0.self_attention.query.weight": "bert.encoder.layer.2.attention.self.query.weight",
        "fusion.layers.1.mlp_norm.bias": "bert.encoder.layer.3.output.LayerNorm.bias",
        "mlm_head.norm.weight": "cls.predictions.transform.LayerNorm.weight",
        "mlm_head.bias": "cls.predictions.bias",
    }
    for ours, theirs in pairs.items():
        assert torch.equal(model.get_parameter(ours), state[theirs]), ours
    unfilled = {name for name, _ in model.named_parameters() if name.startswith(("text.", "fusion.", "mlm_head."))} - filled
    assert unfilled
    assert all(".cross_attention" in name for name in unfilled)


def test_weights_of_another_size_are_refused_by_name(tmp_path: Path) -> None:
    BertForMaskedLM(bert_config(TEXT.model_copy(update={"vocab_size": 31}))).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"word_embeddings\.weight has shape \[31, 16\], the model needs \[30, 16\]"):
        load_initial_weights(model_with(text=TEXT.model_copy(update={"weights": str(tmp_path)})))


class Malicious:
    """Would write a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"model": Malicious(tmp_path / "touched")}, tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Malicious(tmp_path / "touched")))
    for name in ("evil.pth", "plain.pth"):
        with pytest.raises(UserError, match="holds more than tensors"):
            read_state_dict(tmp_path / name)
    assert not (tmp_path / "touched").exists()
