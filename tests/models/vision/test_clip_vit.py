"""CLIP-ViT: recorded equality, attention within regions."""

import pytest
import torch

from models.config import ClipVitConfig
from models.vision.clip_vit import ClipVit
from recorded import recorded_case
from recorded_vision import check_images, check_regions

CONFIG = ClipVitConfig(image_size=32, patch_size=8, width=16, depth=3, heads=2, intermediate=32, local_depth=2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tokens_equal_the_recorded_ones(dtype: torch.dtype) -> None:
    case = recorded_case("xvlm_pretrain_clip_sharp")
    check_images(case, dtype)
    check_regions(case, dtype)


def encoder(local_depth: int = 2) -> ClipVit:
    torch.manual_seed(0)
    built = ClipVit(CONFIG.model_copy(update={"local_depth": local_depth})).double().eval()
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return built


def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_a_region_that_is_the_whole_image_equals_the_image() -> None:
    whole, regions = encoder().encode_regions(images(), torch.tensor([1, 0]), torch.ones(2, 16, dtype=torch.bool))
    torch.testing.assert_close(whole, encoder()(images()))
    torch.testing.assert_close(regions.tokens, whole[[1, 0], 0])
    torch.testing.assert_close(regions.patches, whole[[1, 0], 1:])


def test_whole_images_do_not_depend_on_their_regions() -> None:
    mask = torch.zeros(3, 16, dtype=torch.bool)
    mask[:, 3] = True
    whole, _ = encoder().encode_regions(images(), torch.tensor([0, 0, 1]), mask)
    torch.testing.assert_close(whole, encoder()(images()))


def test_no_region_at_all_is_no_error() -> None:
    whole, regions = encoder().encode_regions(images(), torch.empty(0, dtype=torch.long), torch.empty(0, 16, dtype=torch.bool))
    torch.testing.assert_close(whole, encoder()(images()))
    assert regions.tokens.shape == (0, 16)


@pytest.mark.parametrize(("local_depth", "sees_outside"), [(3, False), (2, True)])
def test_only_the_last_layers_are_blind_outside_the_region(local_depth: int, sees_outside: bool) -> None:
    inside = torch.zeros(1, 16, dtype=torch.bool)
    inside[:, [0, 1, 4, 5]] = True  # the upper left quarter
    pixels, changed = images()[:1], images()[:1]
    changed[:, :, 16:, 16:] = 5.0
    clip, index = encoder(local_depth), torch.tensor([0])
    _, before = clip.encode_regions(pixels, index, inside)
    _, after = clip.encode_regions(changed, index, inside)
    assert before.patches is not None and after.patches is not None
    assert torch.allclose(before.tokens, after.tokens) is not sees_outside
    assert torch.allclose(before.patches[inside], after.patches[inside]) is not sees_outside


def test_every_parameter_gets_a_gradient() -> None:
    clip = encoder()
    _, regions = clip.encode_regions(images(), torch.tensor([0, 1]), torch.ones(2, 16, dtype=torch.bool))
    regions.tokens.square().sum().backward()
    assert [name for name, parameter in clip.named_parameters() if parameter.grad is None] == []
