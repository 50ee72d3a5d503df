"""The fusion encoder and its shared vision context."""

import torch

from models.config import FusionConfig, TextConfig
from models.fusion import Fusion
from models.vision.regions import RegionViews, region_tokens

CONFIG = TextConfig(width=16, layers=1, heads=2, intermediate=32, vocab_size=20, max_positions=16, dropout=0.0)


def build() -> tuple[Fusion, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    fusion = Fusion(CONFIG, FusionConfig(layers=2), vision_width=12).double()
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tokens = torch.randn(3, 1 + 9, 12, dtype=torch.float64)
    tokens[:, 0] = tokens[:, 1:].mean(dim=1)
    text = torch.randn(4, 5, 16, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0]], dtype=torch.bool)
    return fusion, tokens, text, mask


def test_a_region_that_is_the_whole_image_equals_the_image() -> None:
    fusion, tokens, text, mask = build()
    index = torch.tensor([0, 0, 2, 1])
    patches = torch.ones(4, 9, dtype=torch.bool)
    regions = RegionViews(region_tokens(tokens, index, patches), index, patches)
    _, as_region = fusion(text, mask, fusion.context(tokens, regions), torch.arange(4) + 3)
    _, as_image = fusion(text, mask, fusion.context(tokens), index)
    torch.testing.assert_close(as_region, as_image)


def test_a_region_sees_its_own_patches_only() -> None:
    fusion, tokens, text, mask = build()
    index = torch.tensor([1, 1, 1, 1])
    patches = torch.zeros(4, 9, dtype=torch.bool)
    patches[:, [2, 5]] = True

    def fused(tokens: torch.Tensor) -> torch.Tensor:
        regions = RegionViews(region_tokens(tokens, index, patches), index, patches)
        return fusion(text, mask, fusion.context(tokens, regions), torch.arange(4) + 3)[1]

    outside, inside = tokens.clone(), tokens.clone()
    outside[1, [1, 2, 4]] += 5  # token 1 + patch number; patches 0, 1 and 3
    inside[1, 3] += 5  # patch 2
    torch.testing.assert_close(fused(outside), fused(tokens))
    assert (fused(inside) - fused(tokens)).abs().max() > 1e-3


def test_passes_together_equal_passes_apart() -> None:
    fusion, tokens, text, mask = build()
    vision = fusion.context(tokens)
    first, second = torch.tensor([0, 1, 2, 0]), torch.tensor([2, 2, 0, 1])
    _, together = fusion(torch.cat([text, text]), torch.cat([mask, mask]), vision, torch.cat([first, second]))
    torch.testing.assert_close(together, torch.cat([fusion(text, mask, vision, first)[1], fusion(text, mask, vision, second)[1]]))


def test_text_padding_changes_nothing() -> None:
    fusion, tokens, text, mask = build()
    vision, view = fusion.context(tokens), torch.tensor([0, 1, 2, 0])
    longer = torch.cat([text, torch.randn(4, 3, 16, dtype=torch.float64)], dim=1)
    padded = fusion(longer, torch.nn.functional.pad(mask, (0, 3)), vision, view)[1][:, :5]
    keep = mask[:, :, None]
    torch.testing.assert_close(padded * keep, fusion(text, mask, vision, view)[1] * keep)


def test_attention_maps_are_the_probabilities_of_the_forward_pass() -> None:
    fusion, tokens, text, mask = build()
    index = torch.tensor([0, 1, 2, 0])
    patches = torch.zeros(4, 9, dtype=torch.bool)
    patches[:, :4] = True
    regions = RegionViews(region_tokens(tokens, index, patches), index, patches)
    vision = fusion.context(tokens, regions)
    maps = fusion.attention_maps(text, mask, vision, torch.arange(4) + 3, layer=-1)
    assert maps.shape == (4, 2, 5, 10)
    torch.testing.assert_close(maps.sum(dim=-1), torch.ones(4, 2, 5, dtype=torch.float64))
    assert maps[..., 5:].abs().max() == 0


def test_pooled_rows_are_position_zero_of_the_full_ones_with_the_same_gradients() -> None:
    fusion, tokens, text, mask = build()
    text.requires_grad_()
    view = torch.tensor([0, 2, 1, 1])

    def gradients(states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(states.sin().sum(), [text, *fusion.parameters()])

    heads, others = fusion(text, mask, fusion.context(tokens), view, pooled=3)
    assert (heads.shape, others.shape) == ((3, 1, 16), (1, 5, 16))
    _, full = fusion(text, mask, fusion.context(tokens), view)
    pooled, wanted = torch.cat([heads[:, 0], others[0]]), torch.cat([full[:3, 0], full[3]])
    torch.testing.assert_close(pooled, wanted)
    for ours, expected in zip(gradients(pooled), gradients(wanted), strict=True):
        torch.testing.assert_close(ours, expected)
