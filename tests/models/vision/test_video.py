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


def colours(pairs: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips that turn from one colour to another, each followed by itself backwards: [2 * pairs, T, 3, 2, 2], and whether the first
    colour has the lower number."""
    generator = torch.Generator().manual_seed(seed)
    both = torch.stack([torch.randperm(4, generator=generator)[:2] for _ in range(pairs)])  # [pairs, 2]
    shades = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    first, second = shades[both].unbind(dim=1)
    shown = torch.stack([first, first, second, second], dim=1)[..., None, None].expand(-1, -1, -1, 2, 2)  # [pairs, T, 3, 2, 2]
    clip = shown + 0.1 * torch.randn(shown.shape, generator=generator)
    lower = torch.stack([both[:, 0] < both[:, 1], both[:, 0] > both[:, 1]], dim=1).flatten()
    return torch.stack([clip, clip.flip(1)], dim=1).flatten(0, 1), lower.float()


@pytest.mark.parametrize(("temporal", "least", "most"), [("mean", 0.5, 0.5), ("attention", 0.95, 1.0)])
def test_the_block_over_time_learns_the_order_and_the_average_is_right_about_one_of_two(temporal, least, most):
    torch.manual_seed(0)
    frames = encoder(temporal)
    project, head = nn.Linear(12, WIDTH).double(), nn.Linear(WIDTH, 1).double()

    def logits(clips: torch.Tensor) -> torch.Tensor:
        return head(frames(clips.double(), lambda images: project(images.flatten(1))[:, None])[:, 0])[:, 0]

    optimizer = torch.optim.Adam([*frames.parameters(), *project.parameters(), *head.parameters()], lr=1e-2)
    for step in range(150):
        clips, lower = colours(32, step)
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(logits(clips), lower.double()).backward()
        optimizer.step()
    clips, lower = colours(100, 10_000)
    with torch.no_grad():
        right = ((logits(clips) > 0).float() == lower).float().mean().item()
    assert least <= right <= most
