"""Swin: recorded equality, windows, global token."""

import pytest
import torch

from models.config import SwinConfig
from models.vision.swin import Swin
from recorded import recorded_case
from recorded_vision import check_images, check_regions

CONFIG = SwinConfig(image_size=64, patch_size=4, embed_dim=8, width=16, depths=(2, 2), heads=(2, 4), window=8, drop_path=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["xvlm_pretrain_swin_sharp", "cclm_pretrain_sharp"])
def test_tokens_equal_the_recorded_ones(name: str, dtype: torch.dtype) -> None:
    case = recorded_case(name)
    check_images(case, dtype)
    check_regions(case, dtype)


def encoder(config: SwinConfig = CONFIG) -> Swin:
    torch.manual_seed(0)
    built = Swin(config).double().eval()
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return built


def test_the_global_token_is_the_mean_of_the_patches() -> None:
    tokens = encoder()(torch.randn(2, 3, 64, 64, dtype=torch.float64))
    assert tokens.shape == (2, 1 + 64, 16)
    torch.testing.assert_close(tokens[:, 0], tokens[:, 1:].mean(dim=1))


def test_patches_are_in_raster_order() -> None:
    swin, pixels = encoder(CONFIG.model_copy(update={"depths": (1, 1)})), torch.randn(1, 3, 64, 64, dtype=torch.float64)
    changed = pixels.clone()
    changed[:, :, 0:8, 56:64] += 1.0  # the upper right token of 8 x 8
    moved = (swin(changed) - swin(pixels)).norm(dim=-1)[0, 1:]
    assert moved.argmax() == 7


def test_a_stage_no_larger_than_the_window_has_one_window_of_its_own_size() -> None:
    swin = encoder(CONFIG.model_copy(update={"image_size": 32, "window": 8}))  # stages of 8 x 8 and 4 x 4 tokens
    tables = [swin.get_parameter(f"backbone.layers.{stage}.blocks.1.attn.relative_position_bias_table") for stage in range(2)]
    assert [len(table) for table in tables] == [15 * 15, 7 * 7]
    blocks = [swin.get_submodule(f"backbone.layers.{stage}.blocks.1") for stage in range(2)]
    assert [block.shift_size for block in blocks] == [(0, 0), (0, 0)]
