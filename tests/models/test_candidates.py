"""Packed matching of candidate texts."""

import pytest
import torch
from torch import Tensor

from models.candidates import PackedTexts, match_candidates
from models.vlm import FusionPass, VisionLanguageModel
from task_batches import ranking_model

CPU = torch.device("cpu")
LENGTHS = torch.tensor([3, 7, 1, 7, 5, 2, 2])


@pytest.fixture(scope="module")
def model() -> VisionLanguageModel:
    return ranking_model(vision_width=8, fusion_layers=3)


@pytest.fixture(scope="module")
def texts() -> PackedTexts:
    starts = torch.tensor([24, 0, 26, 7, 14, 19, 21])
    return PackedTexts(torch.randn(27, 16, generator=torch.Generator().manual_seed(1)), starts, LENGTHS)


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(2))


def one_by_one(model: VisionLanguageModel, tokens: Tensor, texts: PackedTexts, pairs: list[tuple[int, int]]) -> Tensor:
    """Matching logit of each (image, text), each computed alone by the model's own fusion."""
    logits = []
    for image, text in pairs:
        start, length = int(texts.starts[text]), int(texts.lengths[text])
        mask, view = torch.ones(1, length, dtype=torch.bool), torch.zeros(1, dtype=torch.int64)
        item = FusionPass(texts.states[None, start : start + length], mask, view)
        logits.append(model.match_logits(model.fuse(model.context(tokens[image : image + 1]), [item])[0])[0, 1])
    return torch.stack(logits)


@pytest.mark.parametrize(
    "pairs",
    [
        [(0, 0), (0, 1), (0, 2), (1, 1), (2, 4), (2, 0), (2, 6), (2, 3)],  # another number of texts and tokens for each image
        [(0, 1), (1, 3), (2, 1)],  # nothing to pad
        [(0, text) for text in range(7)],
    ],
)
def test_packed_matching_equals_fusing_pair_by_pair(
    model: VisionLanguageModel, texts: PackedTexts, tokens: Tensor, pairs: list[tuple[int, int]]
) -> None:
    images, chosen = (torch.tensor(part) for part in zip(*pairs, strict=True))
    counts = images.bincount()
    context = model.context(tokens[: len(counts)])
    with torch.no_grad():
        found = match_candidates(model, context, texts.select(chosen, CPU), texts.lengths[chosen], counts)
        torch.testing.assert_close(found, one_by_one(model, tokens, texts, pairs))


def test_matching_runs_under_autocast_close_to_full_precision(model: VisionLanguageModel, texts: PackedTexts, tokens: Tensor) -> None:
    chosen, counts = torch.tensor([0, 1, 2, 4, 3]), torch.tensor([2, 3])
    states, lengths = texts.select(chosen, CPU), texts.lengths[chosen]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        context = model.context(tokens[:2])
        assert context.layer(0).rows(None).keys.dtype == torch.bfloat16
        found = match_candidates(model, context, states, lengths, counts)
    expected = match_candidates(model, model.context(tokens[:2]), states, lengths, counts)
    torch.testing.assert_close(found.float(), expected, atol=0.1, rtol=0.1)
