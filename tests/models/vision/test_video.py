"""Clips: the official average, and the block over time."""

import pytest
import torch
from torch import nn

from models.config import Beit2Config
from models.vision.video import FrameMean

WIDTH, FRAMES = 16, 4
CONFIG = Beit2Config(image_size=16, patch_size=8, width=WIDTH, depth=1, heads=2, frames=FRAMES)


class Patches(nn.Module):
    """An encoder of nothing but a projection: [B, 3, 16, 16] -> [B, 5, WIDTH]."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Conv2d(3, WIDTH, 8, 8).double()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = self.project(images).flatten(2).transpose(1, 2)
        return torch.cat([patches.mean(dim=1, keepdim=True), patches], dim=1)


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    return torch.randn(2, FRAMES, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def encoder(temporal: str) -> FrameMean:
    torch.manual_seed(0)
    return FrameMean(CONFIG.model_copy(update={"temporal": temporal})).double()


def test_the_average_does_not_know_the_order_and_the_block_over_time_does(clips):
    torch.manual_seed(2)
    encode = Patches()
    mean, attention = encoder("mean"), encoder("attention")
    torch.testing.assert_close(mean(clips.flip(1), encode), mean(clips, encode))
    assert attention.temporal is not None
    for parameter in attention.temporal.parameters():
        nn.init.normal_(parameter, std=0.3)
    assert (attention(clips.flip(1), encode) - attention(clips, encode)).abs().max() > 0.1


def test_a_new_block_over_time_changes_nothing_and_learns_from_the_first_step(clips):
    torch.manual_seed(2)
    encode = Patches()
    mean, attention = encoder("mean"), encoder("attention")
    assert not attention.load_state_dict(mean.state_dict(), strict=False).unexpected_keys
    torch.testing.assert_close(attention(clips, encode), mean(clips, encode))
    attention(clips, encode)[:, :, 0].square().sum().backward()
    assert attention.temporal is not None
    assert attention.temporal.mlp_out.weight.grad is not None
    assert attention.temporal.mlp_out.weight.grad.abs().max() > 0
    assert attention.temporal.attention.output.weight.grad is not None
    assert attention.temporal.attention.output.weight.grad.abs().max() > 0


def test_another_number_of_frames_is_refused(clips):
    with pytest.raises(ValueError, match=r"model\.vision\.frames is 4"):
        encoder("mean")(clips[:, :3], Patches())
