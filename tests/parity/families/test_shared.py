"""What the families share."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import UserError
from models.config import Beit2Config, ClipVitConfig, SwinConfig
from models.vlm import VisionLanguageModel, build_vision
from parity.case import read_case
from parity.families.shared import likeliest_negatives, recorded_config, to_batch, vision_blocks, watching
from parity.families.xvlm import JointPretraining, block_output, case_adapter
from recorded import FIXTURES

CASE = FIXTURES / "xvlm_pretrain_clip_sharp"


def test_the_likeliest_negatives_are_drawn() -> None:
    generator = torch.Generator().manual_seed(0)
    image, text = (torch.nn.functional.normalize(torch.randn(9, 4, generator=generator), dim=1) for _ in range(2))
    batch = to_batch({"text_atts": torch.ones(9, 3)}, torch.float32)
    draws, image_of_text, text_of_image = likeliest_negatives(image, text, torch.tensor(0.07), batch)
    others = (image @ text.T).masked_fill(torch.eye(9, dtype=torch.bool), -2.0)
    assert torch.equal(image_of_text, others.argmax(dim=0))
    assert torch.equal(text_of_image, others.argmax(dim=1))
    assert draws.shape == (9, 2)


def test_regions_become_views_and_boxes() -> None:
    inputs = {
        "image": torch.zeros(1, 3, 4, 4),
        "text_atts": torch.tensor([[1, 1, 0], [1, 0, 0]]),
        "idx_to_group_img": torch.tensor([0, 0]),
        "image_atts": torch.tensor([[1, 0, 1], [1, 1, 1]]),
        "target_bbox": torch.full((2, 4), 0.5),
        "is_image": None,
    }
    batch = to_batch(inputs, torch.float64)
    assert batch["image"].dtype == batch["target_box"].dtype == torch.float64
    assert batch["patch_mask"].tolist() == [[False, True], [True, True]]
    assert batch["is_image"].tolist() == [False, False]  # where the official code got none, all boxes count
    assert batch["text_mask"].tolist() == [[True, True, False], [True, False, False]]


def test_a_watched_model_is_left_as_it_was() -> None:
    case = read_case(CASE)
    model = JointPretraining().build(case, torch.float32).model
    assert isinstance(model, VisionLanguageModel)
    ids, mask = torch.ones(1, 2, dtype=torch.int64), torch.ones(1, 2, dtype=torch.bool)
    with watching(model, ("encode_text",)) as seen:
        states = model.encode_text(ids, mask)
    model.encode_text(ids, mask)
    assert len(seen["encode_text"]) == 1 and seen["encode_text"][0] is states
    assert "encode_text" not in vars(model)


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (Beit2Config(image_size=32, width=8, depth=3, heads=2), 3),
        (SwinConfig(image_size=32, width=16, embed_dim=4, depths=(1, 1, 1), heads=(1, 1, 1), window=2), 3),
        (ClipVitConfig(image_size=32, width=8, depth=2, heads=2, intermediate=8, local_depth=1), 2),
    ],
)
def test_every_block_of_an_encoder_is_found(config, count) -> None:
    blocks = vision_blocks(build_vision(config).get_submodule("backbone"))
    assert list(blocks) == [f"vision_block{index}" for index in range(count)]


def test_regions_come_before_images_where_both_pass_a_block() -> None:
    batch = {"image": torch.zeros(1, 3, 4, 4), "patch_mask": torch.ones(2, 4)}
    assert block_output(torch.tensor([[[0.0]], [[1.0]], [[2.0]]]), batch).flatten().tolist() == [1.0, 2.0, 0.0]
    assert block_output(torch.tensor([[[0.0]]]), batch).flatten().tolist() == [0.0]


def test_sizes_come_from_shapes_and_the_rest_from_the_recording() -> None:
    case = read_case(CASE)
    config = recorded_config(case, case_adapter(case))
    assert isinstance(config.vision, ClipVitConfig)
    assert config.vision.image_size == case.base["image_res"]
    assert config.vision.heads == case.dims["vision"]["num_attention_heads"]
    assert config.vision.local_depth == case.dims["vision"]["local_attn_depth"]
    assert config.text.layer_norm_eps == case.dims["text"]["layer_norm_eps"]
    assert config.text.layers == case.dims["text"]["fusion_layer"]


def test_a_weight_that_is_not_recorded_is_named(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(CASE, tmp_path / "case"))
    weights = load_file(folder / "weights.safetensors")
    del weights["itm_head.0.bias"]
    save_file(weights, folder / "weights.safetensors")
    with pytest.raises(UserError, match=r"itm_head\.0\.bias is not in the recorded weights"):
        JointPretraining().build(read_case(folder), torch.float32)


def test_a_fixed_temperature_is_no_weight(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(CASE, tmp_path / "case"))
    weights = load_file(folder / "weights.safetensors")
    del weights["temp"]
    save_file(weights, folder / "weights.safetensors")
    case = read_case(folder)
    model = JointPretraining().build(case, torch.float64).model
    assert isinstance(model, VisionLanguageModel)
    assert float(model.temperature) == case.base["temp"]
    assert not model.temperature.requires_grad
