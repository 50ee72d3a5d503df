"""The published code's AdamW, step by step."""

import math

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from engine.adamw import OfficialAdamW

LR, DECAY, BETA1, BETA2, EPS = 0.1, 0.5, 0.8, 0.9, 0.01
GRADIENTS = (2.0, -1.0, 0.5)


def trajectory(optimizer_class: type[torch.optim.Optimizer]) -> list[float]:
    weight = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    optimizer = optimizer_class([{"params": [weight], "weight_decay": DECAY}], lr=LR, betas=(BETA1, BETA2), eps=EPS)  # pyright: ignore[reportCallIssue]
    values = []
    for gradient in GRADIENTS:
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        values.append(weight.item())
    return values


def test_three_steps_computed_by_hand() -> None:
    """With round numbers: betas 0.8 and 0.9, eps 0.01, rate 0.1, decay 0.5, starting from 1.

    Means of g: 0.4, 0.12, 0.196. Means of g²: 0.4, 0.46, 0.439.
    """
    value, expected = 1.0, []
    for step, (mean, square) in enumerate([(0.4, 0.4), (0.12, 0.46), (0.196, 0.439)], start=1):
        correction = math.sqrt(1 - 0.9**step) / (1 - 0.8**step)
        value -= 0.1 * correction * mean / (math.sqrt(square) + 0.01)
        value -= 0.1 * 0.5 * value  # of the value after the update
        expected.append(value)
    assert trajectory(OfficialAdamW) == pytest.approx(expected, rel=1e-12)


def test_it_is_not_torchs() -> None:
    assert trajectory(OfficialAdamW)[0] != pytest.approx(trajectory(AdamW)[0], rel=1e-4)


def test_parameters_without_a_gradient_stay() -> None:
    still, moving = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    moving.grad = torch.ones(2)
    OfficialAdamW([{"params": [still, moving]}], weight_decay=0.1).step()
    assert torch.equal(still, torch.ones(2))
    assert not torch.equal(moving, torch.ones(2))
