"""Masked image modelling losses."""

import pytest
import torch
from torch.nn import functional as F

from common.distributed import GradientMode
from models.objectives.masked_image import code_loss, token_loss

HIDDEN = torch.tensor([[True, False, True, False], [False, False, False, True]])


def tokens(seed: int) -> torch.Tensor:
    return torch.randn(2, 1 + 4, 6, generator=torch.Generator().manual_seed(seed))


def test_hidden_patches_and_the_global_token_are_compared() -> None:
    predicted, target = tokens(0), tokens(1)
    patches = F.mse_loss(predicted[:, 1:][HIDDEN], target[:, 1:][HIDDEN])
    torch.testing.assert_close(token_loss(predicted, target, HIDDEN, "exact", pooled=False), patches)
    torch.testing.assert_close(token_loss(predicted, target, HIDDEN, "exact"), patches + F.mse_loss(predicted[:, 0], target[:, 0]))


def test_no_gradient_reaches_the_target() -> None:
    predicted, target = tokens(0).requires_grad_(), tokens(1).requires_grad_()
    token_loss(predicted, target, HIDDEN, "exact").backward()
    assert target.grad is None
    assert predicted.grad is not None
    assert predicted.grad[:, 1:][~HIDDEN].abs().sum() == 0


def test_codes_count_at_hidden_patches_only() -> None:
    logits, codes = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(2)), torch.tensor([[1, 8, 3, 0], [2, 2, 5, 7]])
    torch.testing.assert_close(code_loss(logits, codes, HIDDEN, "exact"), F.cross_entropy(logits[HIDDEN], codes[HIDDEN]))


@pytest.mark.parametrize("mode", ["exact", "paper"])
def test_nothing_hidden_gives_zero_with_a_gradient_path(mode: GradientMode) -> None:
    predicted, logits = tokens(0).requires_grad_(), torch.randn(2, 4, 9, requires_grad=True)
    nothing = torch.zeros_like(HIDDEN)
    for values, loss in (
        (predicted, token_loss(predicted, tokens(1), nothing, mode, pooled=False)),
        (logits, code_loss(logits, torch.zeros(2, 4, dtype=torch.int64), nothing, mode)),
    ):
        loss.backward()
        assert loss.item() == 0
        assert values.grad is not None
        assert values.grad.abs().sum() == 0
