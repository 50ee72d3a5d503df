"""Masked language modelling loss."""

import torch
from torch.nn import functional as F

from common.labels import IGNORED
from models.objectives.masked_lm import mlm_loss


def test_padding_labels_do_not_count() -> None:
    logits = torch.randn(2, 3, 11, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1, 2, IGNORED], [5, IGNORED, IGNORED]])
    expected = F.cross_entropy(torch.stack([logits[0, 0], logits[0, 1], logits[1, 0]]), torch.tensor([1, 2, 5]))
    torch.testing.assert_close(mlm_loss(logits, labels, "exact"), expected)


def test_no_masked_token_gives_zero_with_a_gradient_path() -> None:
    for mode in ("exact", "paper"):
        logits = torch.randn(2, 3, 11, requires_grad=True)
        loss = mlm_loss(logits, torch.full((2, 3), IGNORED), mode)
        loss.backward()
        assert loss.item() == 0
        assert logits.grad is not None
        assert logits.grad.abs().sum() == 0
