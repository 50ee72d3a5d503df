"""Box losses."""

import pytest
import torch
from torchvision.ops import generalized_box_iou

from models.objectives.box import box_losses, paired_giou, paired_overlap, to_corners


def boxes(rows: int, seed: int) -> torch.Tensor:
    return torch.rand(rows, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 0.8 + 0.1


def test_giou_equals_torchvision() -> None:
    left, right = to_corners(boxes(20, 0)), to_corners(boxes(20, 1))
    torch.testing.assert_close(paired_giou(left, right), generalized_box_iou(left, right).diagonal())


def test_shared_and_covered_areas() -> None:
    left = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 1.0, 1.0]])
    right = torch.tensor([[1.0, 1.0, 3.0, 2.0], [2.0, 2.0, 3.0, 3.0]])
    shared, union = paired_overlap(left, right)
    assert shared.tolist() == [1.0, 0.0]
    assert union.tolist() == [5.0, 2.0]


def test_rows_without_a_box_of_their_own_do_not_count() -> None:
    predicted, target = boxes(4, 2).requires_grad_(), boxes(4, 3)
    counted = torch.tensor([True, False, True, False])
    l1, giou = box_losses(predicted, target, counted, "exact")
    expected_l1, expected_giou = box_losses(predicted[::2], target[::2], counted[::2], "exact")
    torch.testing.assert_close((l1, giou), (expected_l1, expected_giou))
    (l1 + giou).backward()
    assert predicted.grad is not None
    assert predicted.grad[1::2].abs().sum() == 0


@pytest.mark.parametrize("mode", ["exact", "paper"])
def test_no_box_at_all_gives_zero_not_nan(mode: str) -> None:
    predicted = boxes(3, 4).requires_grad_()
    l1, giou = box_losses(predicted, boxes(3, 5), torch.zeros(3, dtype=torch.bool), mode)  # pyright: ignore[reportArgumentType]
    (l1 + giou).backward()
    assert l1.item() == giou.item() == 0


def test_an_empty_box_is_finite() -> None:
    empty = torch.tensor([[0.5, 0.5, 0.0, 0.0]])
    l1, giou = box_losses(empty.clone().requires_grad_(), empty, torch.tensor([True]), "exact")
    (l1 + giou).backward()
    assert torch.isfinite(l1 + giou)
