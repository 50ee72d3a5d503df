"""Box prediction: L1 and generalised IoU (X-VLM section 3.2; arXiv 1902.09630).

Shapes: R boxes as centre x, centre y, width, height, relative to the image side, in [0, 1].
"""

import torch
from torch import Tensor

from common.distributed import GradientMode, mean_of_rows


def to_corners(boxes: Tensor) -> Tensor:
    """Boxes [R, 4] as left, top, right, bottom."""
    centre, size = boxes[:, :2], boxes[:, 2:]
    return torch.cat([centre - size / 2, centre + size / 2], dim=1)


def paired_overlap(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Areas [R] that row i of `left` and row i of `right`, corner boxes [R, 4], share, and that they cover together."""
    area_left, area_right = ((box[:, 2:] - box[:, :2]).clamp(min=0).prod(dim=1) for box in (left, right))
    shared = (torch.minimum(left[:, 2:], right[:, 2:]) - torch.maximum(left[:, :2], right[:, :2])).clamp(min=0).prod(dim=1)
    return shared, area_left + area_right - shared


def paired_giou(left: Tensor, right: Tensor) -> Tensor:
    """Generalised IoU of row i of `left` with row i of `right`, corner boxes [R, 4] -> [R] in [-1, 1]."""
    shared, union = paired_overlap(left, right)
    hull = (torch.maximum(left[:, 2:], right[:, 2:]) - torch.minimum(left[:, :2], right[:, :2])).clamp(min=0).prod(dim=1)
    smallest = torch.finfo(left.dtype).tiny  # two empty boxes give 0/0
    return shared / union.clamp(min=smallest) - (hull - union) / hull.clamp(min=smallest)


def box_losses(predicted: Tensor, target: Tensor, counted: Tensor, mode: GradientMode) -> tuple[Tensor, Tensor]:
    """L1 loss (summed over coordinates) and GIoU loss, mean over the counted rows.

    A degenerate box costs only its own row; the official code drops the GIoU loss of the whole batch.

    Args:
        predicted: [R, 4] in [0, 1].
        target: [R, 4] in [0, 1].
        counted: [R] False for rows without a box of their own (captions of the whole image).
        mode: see `GradientMode`.

    Returns:
        Two scalars, 0 where no row counts.
    """
    dtype = torch.promote_types(predicted.dtype, torch.float32)
    predicted, target = predicted.to(dtype), target.to(dtype)
    l1 = (predicted - target).abs().sum(dim=1)
    giou = 1 - paired_giou(to_corners(predicted), to_corners(target))
    count = counted.sum()
    return (
        mean_of_rows(torch.where(counted, l1, 0.0).sum(), count, mode),
        mean_of_rows(torch.where(counted, giou, 0.0).sum(), count, mode),
    )
