"""The contrastive loss that never stores all similarities."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import models.objectives.contrastive
from contrastive_pairs import IDS, compare_ring_with_gathered, loss_and_gradients, pairs
from models.objectives.contrastive import STORED_LOGITS, itc_loss
from models.objectives.contrastive_ring import TILE, ring_loss
from ranks import run_ranks


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that any operation made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for item in made if isinstance(made, tuple | list) else [made]:
            if isinstance(item, Tensor):
                self.elements = max(self.elements, item.numel())
        return made


def test_the_ring_equals_the_gathered_loss_and_its_gradients_alone() -> None:
    compare_ring_with_gathered()


@pytest.mark.slow
def test_the_ring_equals_the_gathered_loss_and_its_gradients_on_several_ranks() -> None:
    run_ranks(compare_ring_with_gathered, (2, 3, 4))


def test_no_more_than_a_tile_of_similarities_is_ever_made() -> None:
    rows = 64
    with LargestTensor() as largest:
        loss_and_gradients(0, 8, "exact", None, rows)
    assert largest.elements == 2 * rows * 8  # the features
    with LargestTensor() as largest:
        loss_and_gradients(STORED_LOGITS, 8, "exact", None, rows)
    assert largest.elements == rows * rows


def test_large_batches_take_the_ring_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    def ring(image: Tensor, *others: Any) -> Tensor:
        taken.append(len(image))
        return ring_loss(image, *others)

    monkeypatch.setattr(models.objectives.contrastive, "ring_loss", ring)
    small = int(STORED_LOGITS**0.5)
    for rows in (small, small + 1):
        image, text, temperature = pairs(rows, width=2)
        with torch.no_grad():
            itc_loss(image, text, temperature, None, "exact")
    assert taken == [small + 1]
    assert small + 1 > TILE


@pytest.mark.parametrize("ids", [None, torch.tensor([4])])
def test_a_single_pair_has_zero_loss_and_no_gradient(ids: Tensor | None) -> None:
    loss, *gradients = loss_and_gradients(0, TILE, "exact", ids, rows=1)
    assert loss == 0
    assert all((gradient == 0).all() for gradient in gradients)


def test_single_precision_features_give_single_precision_gradients_to_rounding() -> None:
    exact = loss_and_gradients(0, 3, "exact", torch.tensor(IDS))
    image, text, temperature = (value.detach().float().requires_grad_() for value in pairs(len(IDS)))
    loss = ring_loss(image, text, temperature, torch.tensor(IDS), 3)
    found = [loss.detach(), *torch.autograd.grad(loss, (image, text, temperature))]
    assert {value.dtype for value in found} == {torch.float32}
    torch.testing.assert_close([value.double() for value in found], exact, rtol=1e-5, atol=1e-5)
