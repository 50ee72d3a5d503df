"""Heat of a match: equal to differentiating the attention by hand, and to moving it by hand."""

import pytest
import torch
from torch import Tensor

from models.attention import Attention
from models.config import ModelConfig
from models.fusion import FusionPass
from models.tasks.heat import heat_maps
from models.vlm import VisionLanguageModel
from small_run import MODEL

BATCH = 3


@pytest.fixture(scope="module")
def model() -> VisionLanguageModel:
    torch.manual_seed(0)
    settings = {**MODEL, "fusion": {"layers": 3}}
    built = VisionLanguageModel(ModelConfig.model_validate(settings), ["itc", "itm"]).double().eval()
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return built


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(BATCH, 3, 32, 32, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]], dtype=torch.bool)
    return images, torch.randint(5, 300, (BATCH, 6), generator=generator), mask


def by_moving_attention(model: VisionLanguageModel, layer: int, row: int, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """[g, g] with the match's derivative by each probability taken as a difference: no code of ours differentiates anything."""
    attention = model.fusion.blocks()[layer].cross_attention
    step = 1e-6

    def match(moved: tuple[int, int, int] | None, by: float = 0.0) -> tuple[Tensor, Tensor]:
        seen: list[Tensor] = []

        def mix(queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None) -> Tensor:
            scores = attention.split(queries) @ keys.transpose(-2, -1) / keys.shape[-1] ** 0.5
            probabilities = scores.softmax(dim=-1)
            seen.append(probabilities.clone())
            if moved is not None:
                head, position, patch = moved
                probabilities[row, head, position, patch] += by
            return (probabilities @ values).transpose(-3, -2).flatten(-2)

        attention.mix = mix  # pyright: ignore[reportAttributeAccessIssue]
        try:
            [states] = model.fuse(model.context(model.encode_images(images)), [FusionPass(model.encode_text(ids, mask), mask, None)])
        finally:
            del attention.mix
        return model.match_logits(states)[row, 1], seen[0][row]

    with torch.no_grad():
        _, probabilities = match(None)
        heads, length, patches = probabilities.shape
        heat = torch.zeros(patches, dtype=torch.float64)
        for head in range(heads):
            for position in range(length):
                for patch in range(1, patches) if mask[row, position] else ():
                    place = (head, position, patch)
                    slope = (match(place, step)[0] - match(place, -step)[0]) / (2 * step)
                    heat[patch] += probabilities[place] * slope.clamp(min=0) / heads / length
    return heat[1:].unflatten(0, (4, 4))


@pytest.mark.parametrize("layer", [1, -1])
def test_heat_is_attention_times_the_positive_slope_of_the_match(model: VisionLanguageModel, layer: int) -> None:
    found = heat_maps(model, *inputs(), layer)
    assert found.shape == (BATCH, 4, 4)
    assert not found.requires_grad
    torch.testing.assert_close(found[2].double(), by_moving_attention(model, layer, 2, *inputs()), rtol=1e-4, atol=1e-7)
    assert found[2].max() > 0


def test_heat_leaves_no_gradient_and_no_trace_and_needs_no_trainable_weight(model: VisionLanguageModel) -> None:
    with torch.no_grad():  # as evaluation may run
        expected = heat_maps(model, *inputs(), 1)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.recorded is None for module in model.modules() if isinstance(module, Attention))
    model.requires_grad_(False)
    try:
        torch.testing.assert_close(heat_maps(model, *inputs(), 1), expected)
    finally:
        model.requires_grad_(True)


def test_a_texts_heat_does_not_depend_on_its_batch_and_on_padding_only_in_scale(model: VisionLanguageModel) -> None:
    images, ids, mask = inputs()
    together = heat_maps(model, images, ids, mask, 1)
    alone = heat_maps(model, images[2:], ids[2:, :2], mask[2:, :2], 1)
    torch.testing.assert_close(together[2:] * 3, alone, rtol=1e-5, atol=1e-9)  # a mean over 6 positions, not 2
