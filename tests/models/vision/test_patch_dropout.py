"""Training on a random part of each image's patches."""

import pytest
import torch
from pydantic import ValidationError

from common.errors import UserError
from models.config import Beit2Config, ClipVitConfig, SwinConfig
from models.vision.encoder import VisionEncoder
from models.vlm import build_vision

SIZES = {"image_size": 32, "patch_size": 8, "width": 24, "depth": 2, "heads": 2, "drop_path": 0.0}
CONFIGS = (
    Beit2Config(**SIZES, positions="absolute", patch_dropout=0.5),
    ClipVitConfig(**SIZES, intermediate=48, local_depth=1, patch_dropout=0.5),
)


@pytest.fixture(scope="module", params=CONFIGS, ids=["beit2", "clip_vit"])
def encoder(request: pytest.FixtureRequest) -> VisionEncoder:
    torch.manual_seed(0)
    return build_vision(request.param)


def images() -> torch.Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_training_sees_the_kept_share_and_evaluation_and_regions_see_all(encoder: VisionEncoder) -> None:
    index, patches = torch.arange(4), torch.ones(4, 16, dtype=torch.bool)
    assert encoder.train().encode_images(images()).shape == (4, 1 + 8, 24)
    assert encoder.encode_regions(images(), index, patches)[0].shape == (4, 1 + 16, 24)
    torch.testing.assert_close(encoder.eval().encode_images(images()), encoder(images()))


def test_each_image_keeps_patches_of_its_own_with_their_positions() -> None:
    tokens = torch.arange(17.0)[None, :, None].expand(50, -1, 1)
    torch.manual_seed(0)
    kept = VisionEncoder.keep_patches(tokens, 0.5)[..., 0]
    assert kept.shape == (50, 9)
    assert bool((kept[:, 0] == 0).all())
    assert bool((kept.diff(dim=1) > 0).all())  # in order, none twice
    assert len(kept.unique(dim=0)) > 40
    assert len(kept.unique()) == 17


@pytest.mark.parametrize("kind", [Beit2Config, SwinConfig])
def test_encoders_that_need_whole_images_refuse_it(kind: type[Beit2Config | SwinConfig]) -> None:
    with pytest.raises(ValidationError, match="patch_dropout"):
        kind(patch_dropout=0.5)


def test_masked_image_modelling_refuses_it() -> None:
    with pytest.raises(UserError, match="mim compares all patches"):
        build_vision(CONFIGS[0], hides_patches=True)
