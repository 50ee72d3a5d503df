"""Official names and shapes of vision encoders."""

import pytest
import torch
from torch import Tensor

from common.errors import UserError
from models.checkpoints.keys import KeyTable, convert, convert_back
from models.checkpoints.vision_keys import DERIVED, FRAMES, OFFICIAL, vision_buffers, vision_config, vision_kind, vision_prefixes
from models.config import Beit2Config, ClipVitConfig, SwinConfig, VisionConfig
from models.vlm import build_vision
from recorded import recorded_case

# Sizes in proportions that no published model has, so that a guess would be wrong.
CONFIGS: dict[str, VisionConfig] = {
    "beit2": Beit2Config(image_size=40, patch_size=8, width=24, depth=3, heads=3, mlp_ratio=2.0),
    "swin": SwinConfig(image_size=96, patch_size=4, embed_dim=8, width=32, depths=(2, 4, 1), heads=(2, 4, 8), window=6, mlp_ratio=3.0),
    "clip_vit": ClipVitConfig(image_size=48, patch_size=8, width=24, depth=5, heads=3, intermediate=40),
}


def official(config: VisionConfig) -> dict[str, Tensor]:
    """A file of an encoder, as the official code writes it."""
    torch.manual_seed(0)
    tensors = {f"vision.{name}": torch.randn_like(tensor) for name, tensor in build_vision(config).state_dict().items()}
    return convert_back(tensors, KeyTable(vision_prefixes(config), derived=DERIVED)) | vision_buffers(config)


@pytest.mark.parametrize("kind", CONFIGS)
def test_shapes_tell_the_configuration(kind: str) -> None:
    config = CONFIGS[kind]
    state = official(config)
    assert vision_kind(state) == kind
    assert vision_config({name: tensor.shape for name, tensor in state.items()}, heads=3) == config


@pytest.mark.parametrize("kind", CONFIGS)
def test_names_read_in_both_directions(kind: str) -> None:
    config = CONFIGS[kind]
    table = KeyTable(vision_prefixes(config), derived=DERIVED)
    state = official(config)
    conversion = convert(state, table)
    assert {name.removeprefix("vision.") for name in conversion.tensors} == build_vision(config).state_dict().keys()
    assert set(conversion.ignored.values()) <= {"derived"}
    back = convert_back(conversion.tensors, table) | vision_buffers(config)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


@pytest.mark.parametrize("name", ["xvlm_pretrain_swin", "xvlm_pretrain_clip_sharp", "x2vlm_pretrain", "x2vlm_pretrain_video"])
def test_recorded_files_are_rebuilt_bit_for_bit(name: str) -> None:
    case = recorded_case(name)
    state = {key: tensor for key, tensor in case.weights.items() if key.startswith(OFFICIAL)}
    config = vision_config({key: tensor.shape for key, tensor in case.weights.items()}, case.dims["vision"].get("num_attention_heads"))
    assert config.image_size == case.base["image_res"]
    assert config.frames == (case.base.get("frame_len") if FRAMES in case.weights else None)
    table = KeyTable(vision_prefixes(config), derived=DERIVED)
    back = convert_back(convert(state, table).tensors, table) | vision_buffers(config)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) and back[key].dtype == state[key].dtype for key in state)


def test_swin_without_its_masks_ends_in_one_window_as_all_published_models_do() -> None:
    config = SwinConfig(image_size=96, patch_size=4, embed_dim=8, width=16, depths=(2, 2), heads=(2, 4), window=12)
    shapes = {name: tensor.shape for name, tensor in official(config).items() if not name.endswith("attn_mask")}
    assert vision_config(shapes) == config


def test_a_swin_whose_last_stage_is_smaller_than_the_window() -> None:
    config = SwinConfig(image_size=64, patch_size=4, embed_dim=8, width=32, depths=(2, 2, 2), heads=(2, 4, 8), window=8)
    shapes = {name: tensor.shape for name, tensor in official(config).items()}
    assert vision_config(shapes) == config


def test_a_file_of_the_encoder_alone_is_read_without_prefix() -> None:
    shapes = {name.removeprefix(OFFICIAL): tensor.shape for name, tensor in official(CONFIGS["beit2"]).items()}
    assert vision_config(shapes, prefix="") == CONFIGS["beit2"]


def test_incomplete_and_foreign_files_are_refused() -> None:
    shapes = {name: tensor.shape for name, tensor in official(CONFIGS["beit2"]).items()}
    with pytest.raises(UserError, match=r"not whole: blocks\.0\.attn\.relative_position_bias_table is missing"):
        vision_config({name: shape for name, shape in shapes.items() if not name.endswith("table")})
    with pytest.raises(UserError, match="no vision encoder that is known here"):
        vision_config({"text_encoder.embeddings.word_embeddings.weight": torch.Size((3, 4))})
