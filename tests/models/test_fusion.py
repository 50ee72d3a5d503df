"""The fusion encoder, the context that its passes share, and texts without padding."""

import torch
from torch import Tensor

from common.labels import HOLE
from models.attention import recording
from models.config import FusionConfig, TextConfig
from models.context import VisionContext
from models.fusion import Fusion, FusionPass
from models.packing import Packing
from models.vision.regions import RegionViews, region_tokens

CONFIG = TextConfig(width=16, layers=1, heads=2, intermediate=32, vocab_size=20, max_positions=16, dropout=0.0)


def fuse(fusion: Fusion, text: Tensor, mask: Tensor, vision: VisionContext, view: Tensor) -> Tensor:
    return fusion([FusionPass(text, mask, view)], vision)[0]


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
    as_region = fuse(fusion, text, mask, fusion.context(tokens, regions), torch.arange(4) + 3)
    as_image = fuse(fusion, text, mask, fusion.context(tokens), index)
    torch.testing.assert_close(as_region, as_image)


def test_a_region_sees_its_own_patches_only() -> None:
    fusion, tokens, text, mask = build()
    index = torch.tensor([1, 1, 1, 1])
    patches = torch.zeros(4, 9, dtype=torch.bool)
    patches[:, [2, 5]] = True

    def fused(tokens: torch.Tensor) -> torch.Tensor:
        regions = RegionViews(region_tokens(tokens, index, patches), index, patches)
        return fuse(fusion, text, mask, fusion.context(tokens, regions), torch.arange(4) + 3)

    outside, inside = tokens.clone(), tokens.clone()
    outside[1, [1, 2, 4]] += 5  # token 1 + patch number; patches 0, 1 and 3
    inside[1, 3] += 5  # patch 2
    torch.testing.assert_close(fused(outside), fused(tokens))
    assert (fused(inside) - fused(tokens)).abs().max() > 1e-3


def passes_over_regions() -> tuple[Fusion, list[Tensor], VisionContext, VisionContext, list[FusionPass]]:
    """Five passes as pre-training has them: three over the regions, one over drawn regions, one over whole images."""
    fusion, tokens, text, mask = build()
    leaves = [tokens.requires_grad_(), text.requires_grad_(), *fusion.parameters()]
    index = torch.tensor([0, 0, 2, 1])
    patches = torch.rand(4, 9, generator=torch.Generator().manual_seed(1)) < 0.5
    patches[:, 4] = True
    regions = RegionViews(region_tokens(tokens, index, patches), index, patches)
    own, drawn = torch.arange(4) + 3, torch.tensor([2, 3, 0, 1])
    passes = [
        FusionPass(text, mask, own, pooled=True),
        FusionPass(text, mask, own[drawn], pooled=True),
        FusionPass(text[drawn], mask[drawn], own, pooled=True),
        FusionPass(text.flip(2), mask, own),
        FusionPass(text, mask, index, pooled=True, whole=True),
    ]
    return fusion, leaves, fusion.context(tokens, regions), fusion.context(tokens, regions, shared=False), passes


def with_gradients(states: list[Tensor], passes: list[FusionPass], leaves: list[Tensor]) -> list[Tensor]:
    """The states of tokens, and the gradients of a number made of them."""
    kept = [part if item.pooled else part * item.mask[:, :, None] for part, item in zip(states, passes, strict=True)]
    total = torch.stack([(part.sin() * (number + 1)).sum() for number, part in enumerate(kept)]).sum()
    return [*(part.detach() for part in kept), *torch.autograd.grad(total, leaves, retain_graph=True)]


def test_passes_together_equal_passes_apart_in_states_and_gradients() -> None:
    fusion, leaves, vision, _, passes = passes_over_regions()
    apart = [fusion([item], vision)[0] for item in passes]
    together = with_gradients(fusion(passes, vision), passes, leaves)
    for ours, expected in zip(together, with_gradients(apart, passes, leaves), strict=True):
        torch.testing.assert_close(ours, expected)


def test_shared_keys_and_values_equal_those_projected_for_every_row() -> None:
    fusion, leaves, shared, unshared, passes = passes_over_regions()
    ours = with_gradients(fusion(passes, shared), passes, leaves)
    for found, expected in zip(ours, with_gradients(fusion(passes, unshared), passes, leaves), strict=True):
        torch.testing.assert_close(found, expected)


def test_packed_texts_equal_padded_ones_in_states_and_gradients() -> None:
    fusion, leaves, vision, _, passes = passes_over_regions()
    two_rows = Packing(torch.tensor([[5, 6, 7, 8, 9, HOLE, HOLE, HOLE], [0, 1, 2, 10, 11, 15, 16, 17], [18, *[HOLE] * 7]]), 4, 5)
    packed = [item._replace(packing=Packing.of(item.mask) if number else two_rows) for number, item in enumerate(passes)]
    packed[3] = passes[3]  # one that is not packed beside those that are
    ours = with_gradients(fusion(packed, vision), passes, leaves)
    for found, expected in zip(ours, with_gradients(fusion(passes, vision), passes, leaves), strict=True):
        torch.testing.assert_close(found, expected)


def test_text_padding_changes_nothing() -> None:
    fusion, tokens, text, mask = build()
    vision, view = fusion.context(tokens), torch.tensor([0, 1, 2, 0])
    longer = torch.cat([text, torch.randn(4, 3, 16, dtype=torch.float64)], dim=1)
    padded = fuse(fusion, longer, torch.nn.functional.pad(mask, (0, 3)), vision, view)[:, :5]
    keep = mask[:, :, None]
    torch.testing.assert_close(padded * keep, fuse(fusion, text, mask, vision, view) * keep)


def test_recorded_attention_is_that_of_the_forward_pass() -> None:
    fusion, tokens, text, mask = build()
    index = torch.tensor([0, 1, 2, 0])
    patches = torch.zeros(4, 9, dtype=torch.bool)
    patches[:, :4] = True
    regions = RegionViews(region_tokens(tokens, index, patches), index, patches)
    vision, view = fusion.context(tokens, regions), torch.arange(4) + 3
    plain = fuse(fusion, text, mask, vision, view)
    with recording(fusion.blocks()[-1].cross_attention) as recorded:
        torch.testing.assert_close(fuse(fusion, text, mask, vision, view), plain)
    fuse(fusion, text, mask, vision, view)  # is no longer recorded
    [maps] = recorded
    assert maps.shape == (4, 2, 5, 10)
    torch.testing.assert_close(maps.sum(dim=-1), torch.ones(4, 2, 5, dtype=torch.float64))
    assert maps[..., 5:].abs().max() == 0


def test_pooled_rows_are_position_zero_of_the_full_ones_with_the_same_gradients() -> None:
    fusion, tokens, text, mask = build()
    text.requires_grad_()
    vision, view = fusion.context(tokens), torch.tensor([0, 2, 1, 1])

    def gradients(states: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(states.sin().sum(), [text, *fusion.parameters()], retain_graph=True)

    pooled = fusion([FusionPass(text, mask, view, pooled=True)], vision)[0]
    assert pooled.shape == (4, 1, 16)
    wanted = fuse(fusion, text, mask, vision, view)[:, :1]
    torch.testing.assert_close(pooled, wanted)
    for ours, expected in zip(gradients(pooled), gradients(wanted), strict=True):
        torch.testing.assert_close(ours, expected)
