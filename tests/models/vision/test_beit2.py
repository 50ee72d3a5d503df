"""BEiT-2 with hidden patches."""

import pytest
import torch

from models.config import Beit2Config
from models.vision.beit2 import Beit2

CONFIG = Beit2Config(image_size=32, patch_size=8, width=24, depth=2, heads=2, drop_path=0.0)


@pytest.fixture(scope="module", params=["relative", "both"])
def encoder(request: pytest.FixtureRequest) -> Beit2:
    torch.manual_seed(0)
    encoder = Beit2(CONFIG.model_copy(update={"positions": request.param}), hides_patches=True).double().eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return encoder


def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_a_hidden_patch_is_not_seen(encoder: Beit2) -> None:
    hidden = torch.zeros(2, 16, dtype=torch.bool)
    hidden[:, 5] = True  # row 1, column 1
    pixels, changed = images(), images()
    changed[:, :, 8:16, 8:16] = 7.0
    torch.testing.assert_close(encoder(changed, hidden), encoder(pixels, hidden))
    assert not torch.allclose(encoder(changed), encoder(pixels))
    assert not torch.allclose(encoder(pixels, hidden), encoder(pixels))


def test_nothing_hidden_equals_the_whole_image(encoder: Beit2) -> None:
    torch.testing.assert_close(encoder(images(), torch.zeros(2, 16, dtype=torch.bool)), encoder(images()))


def test_mask_token_exists_only_where_it_is_trained() -> None:
    names = dict(Beit2(CONFIG).named_parameters())
    assert "backbone.mask_token" not in names
