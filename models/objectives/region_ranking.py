"""Learning which of a detector's regions a text means (referring expressions in the code of MVP, arXiv 2201.12596).

Shapes: R texts, V regions.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from common.distributed import GradientMode, mean_of_rows
from models.objectives.box import paired_overlap, to_corners

FOUND = 0.5
"""IoU with the true box from which a region is a right one."""


def region_overlaps(boxes: Tensor, target: Tensor) -> Tensor:
    """IoU of each region with the true box.

    Args:
        boxes: [R, V, 4] left, top, right, bottom as shares of the image; all 0 at padding.
        target: [R, 4] centre x, centre y, width, height of the true boxes.

    Returns:
        [R, V] from 0 to 1.
    """
    true = to_corners(target)[:, None].expand_as(boxes)
    shared, union = paired_overlap(boxes.flatten(0, 1), true.flatten(0, 1))  # [R*V]
    return (shared / union.clamp(min=torch.finfo(union.dtype).tiny)).unflatten(0, boxes.shape[:2])


def overlap_loss(scores: Tensor, overlaps: Tensor, region_mask: Tensor, mode: GradientMode) -> Tensor:
    """Squared difference of scores and IoUs.

    Args:
        scores: [R, V] such as cosines.
        overlaps: [R, V] IoU of each region with the true box, 0 to 1.
        region_mask: [R, V] True for regions, False for padding.
        mode: see `GradientMode`.

    Returns:
        Scalar mean over the regions; 0 where there are none.
    """
    scores = scores.to(_precise(scores))
    return _mean((scores - overlaps.to(scores.dtype)).square(), region_mask, mode)


def choice_loss(logits: Tensor, targets: Tensor, region_mask: Tensor, mode: GradientMode) -> Tensor:
    """Binary cross-entropy of every region.

    Args:
        logits: [R, V]
        targets: [R, V] how right each region is, 0 to 1: its IoU, or whether that is `FOUND` or more.
        region_mask, mode: as in `overlap_loss`.

    Returns:
        Scalar mean over the regions; 0 where there are none.
    """
    logits = logits.to(_precise(logits))
    targets = targets.to(logits.dtype).clamp(0.0, 1.0)  # padding may say anything
    return _mean(F.binary_cross_entropy_with_logits(logits, targets, reduction="none"), region_mask, mode)


def _precise(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)


def _mean(losses: Tensor, region_mask: Tensor, mode: GradientMode) -> Tensor:
    return mean_of_rows(torch.where(region_mask, losses, 0.0).sum(), region_mask.sum(), mode)
