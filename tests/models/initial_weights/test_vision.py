"""Vision weights from the layouts of Microsoft's, timm's and transformers' files, small and local."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionModel

from common.errors import UserError
from models.checkpoints.keys import KeyTable, convert_back
from models.checkpoints.resize import resize_swin_table
from models.checkpoints.vision_keys import swin_prefixes, vision_buffers
from models.config import Beit2Config, ClipVitConfig, FusionConfig, ModelConfig, SwinConfig, TextConfig, VisionConfig
from models.initial_weights import load_initial_weights
from models.vision.beit2 import Beit2
from models.vision.clip_vit import clip_config
from models.vision.swin import Swin
from models.vlm import Head, VisionLanguageModel

BEIT = Beit2Config(image_size=32, patch_size=8, width=16, depth=2, heads=2)
SWIN = SwinConfig(image_size=64, patch_size=4, embed_dim=8, width=16, depths=(2, 2), heads=(2, 4), window=4)
CLIP = ClipVitConfig(image_size=32, patch_size=8, width=16, depth=2, heads=2, intermediate=32, local_depth=1)
TEXT = TextConfig(width=16, layers=1, heads=2, intermediate=32, vocab_size=30, max_positions=12)


def model_from(config: VisionConfig, source: Path | str) -> VisionLanguageModel:
    torch.manual_seed(1)
    vision = config.model_copy(update={"weights": str(source)})
    heads: tuple[Head, ...] = ("itc", "mim") if isinstance(config, Beit2Config) else ("itc",)
    return VisionLanguageModel(ModelConfig(vision=vision, text=TEXT, fusion=FusionConfig(layers=1), projection_dim=4), heads)


def check_filled(model: VisionLanguageModel, expected: dict[str, Tensor]) -> None:
    """Every tensor of the encoder was filled, with the expected numbers (library names)."""
    filled = load_initial_weights(model)
    own = {name: tensor for name, tensor in model.vision.named_parameters() if name != "backbone.mask_token"}
    assert {f"vision.{name}" for name in own} == filled
    assert {f"backbone.{name}" for name in expected} == own.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(own[f"backbone.{name}"].data, tensor, rtol=0.0, atol=0.0, msg=name)


def random_state(module: torch.nn.Module) -> dict[str, Tensor]:
    torch.manual_seed(2)
    return {name: torch.randn_like(tensor) for name, tensor in module.named_parameters()}


def self_supervised_beit(path: Path, image_size: int = 32) -> dict[str, Tensor]:
    """A file as self-supervised BEiT-2 checkpoints are: one shared position table, final norm called norm, under the key model."""
    state = random_state(Beit2(BEIT.model_copy(update={"image_size": image_size})).backbone)
    tables = [name for name in state if name.endswith("relative_position_bias_table")]
    table = torch.randn_like(state[tables[0]])
    unlike = {name.replace("fc_norm", "norm"): tensor for name, tensor in state.items() if name not in tables}
    extra = {"lm_head.weight": torch.zeros(3, 16), "head.weight": torch.zeros(3, 16)}
    torch.save({"model": unlike | extra | {"rel_pos_bias.relative_position_bias_table": table}}, path)
    return state | dict.fromkeys(tables, table)


def test_a_self_supervised_beit_file_fills_the_encoder(tmp_path: Path) -> None:
    expected = self_supervised_beit(tmp_path / "beit.pth")
    check_filled(model_from(BEIT, tmp_path / "beit.pth"), expected)


def test_a_fine_tuned_beit_file_fills_the_encoder(tmp_path: Path) -> None:
    expected = random_state(Beit2(BEIT).backbone)
    buffers = {name: tensor.clone() for name, tensor in vision_buffers(BEIT, "").items()}
    save_file(expected | buffers | {"head.bias": torch.zeros(3)}, tmp_path / "beit.safetensors")
    check_filled(model_from(BEIT, tmp_path / "beit.safetensors"), expected)


def test_a_mask_token_is_taken_where_the_file_has_one(tmp_path: Path) -> None:
    state = random_state(Beit2(BEIT, hides_patches=True).backbone)
    torch.save({"model": state}, tmp_path / "beit.pth")
    model = model_from(BEIT, tmp_path / "beit.pth")
    assert "vision.backbone.mask_token" in load_initial_weights(model)
    assert torch.equal(model.get_parameter("vision.backbone.mask_token"), state["mask_token"])


def test_position_tables_of_another_resolution_are_resized(tmp_path: Path) -> None:
    expected = self_supervised_beit(tmp_path / "beit.pth", image_size=48)
    model = model_from(BEIT, tmp_path / "beit.pth")
    load_initial_weights(model)
    own = model.get_parameter("vision.backbone.blocks.1.attn.relative_position_bias_table")
    assert own.shape == (7 * 7 + 3, 2)
    torch.testing.assert_close(own[-3:], expected["blocks.1.attn.relative_position_bias_table"][-3:])  # the class token's rows are kept


def microsoft_swin(path: Path) -> dict[str, Tensor]:
    """A file as Microsoft's Swin checkpoints are: patches merged at the end of a stage, buffers, a head, under the key model."""
    state = random_state(Swin(SWIN).backbone)
    official = convert_back(state, KeyTable(swin_prefixes(SWIN.depths, "", ""))) | vision_buffers(SWIN, "")
    assert "layers.0.downsample.reduction.weight" in official
    torch.save({"model": official | {"head.weight": torch.zeros(3, 16), "head.bias": torch.zeros(3)}}, path)
    return state


def test_a_microsoft_swin_file_fills_the_encoder(tmp_path: Path) -> None:
    expected = microsoft_swin(tmp_path / "swin.pth")
    check_filled(model_from(SWIN, tmp_path / "swin.pth"), expected)


def test_a_timm_swin_file_fills_the_encoder(tmp_path: Path) -> None:
    expected = random_state(Swin(SWIN).backbone)
    save_file(expected | {"head.fc.weight": torch.zeros(3, 16)}, tmp_path / "swin.safetensors")
    check_filled(model_from(SWIN, tmp_path / "swin.safetensors"), expected)


def test_swin_tables_are_resized_for_another_window(tmp_path: Path) -> None:
    expected = microsoft_swin(tmp_path / "swin.pth")
    larger = SWIN.model_copy(update={"image_size": 96, "window": 6})
    resized = {name: resize_swin_table(tensor, 6, "spline") if name.endswith("bias_table") else tensor for name, tensor in expected.items()}
    check_filled(model_from(larger, tmp_path / "swin.pth"), resized)


def clip(image_size: int = 32) -> CLIPModel:
    torch.manual_seed(2)
    vision = clip_config(CLIP.model_copy(update={"image_size": image_size})).to_dict()
    text = CLIPTextConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9).to_dict()
    return CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=4))


@pytest.mark.parametrize("single_file", [False, True])
def test_a_clip_model_fills_the_encoder(tmp_path: Path, single_file: bool) -> None:
    whole = clip()
    whole.save_pretrained(tmp_path)
    expected = {
        name.removeprefix("vision_model."): tensor for name, tensor in whole.state_dict().items() if name.startswith("vision_model.")
    }
    check_filled(model_from(CLIP, tmp_path / "model.safetensors" if single_file else tmp_path), expected)


def test_a_clip_vision_tower_alone_fills_the_encoder_resized(tmp_path: Path) -> None:
    torch.manual_seed(2)
    CLIPVisionModel(clip_config(CLIP)).save_pretrained(tmp_path)
    model = model_from(CLIP.model_copy(update={"image_size": 64}), tmp_path)
    load_initial_weights(model)
    assert model.get_parameter("vision.backbone.embeddings.position_embedding.weight").shape == (65, 16)


def test_an_incomplete_encoder_is_refused_unless_allowed(tmp_path: Path) -> None:
    state = random_state(Beit2(BEIT).backbone)
    del state["blocks.1.mlp.fc1.weight"]
    torch.save(state, tmp_path / "beit.pth")
    with pytest.raises(UserError, match=r"lacks 1 tensors of the encoder, first vision\.backbone\.blocks\.1\.mlp\.fc1\.weight"):
        load_initial_weights(model_from(BEIT, tmp_path / "beit.pth"))
    filled = load_initial_weights(model_from(BEIT, tmp_path / "beit.pth"), ["vision.backbone.blocks.1.*"])
    assert "vision.backbone.blocks.1.mlp.fc1.weight" not in filled


def test_a_source_that_is_nowhere_is_named() -> None:
    with pytest.raises(UserError, match="no_such_model is neither a local file nor a model that timm can load"):
        load_initial_weights(model_from(SWIN, "no_such_model"))
