"""Classification: one label a row, or one number.

Shapes: R rows, C classes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from common.distributed import GradientMode, mean_of_rows
from common.labels import IGNORED


def classification_loss(logits: Tensor, labels: Tensor, mode: GradientMode, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of rows that have a label.

    Args:
        logits: [R, C].
        labels: [R] class of each row; IGNORED rows do not count.
        mode: see `GradientMode`.
        smoothing: share of the target that is spread evenly over all classes (label smoothing).

    Returns:
        Scalar mean over the rows with a label; 0 where there are none.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    total = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing)
    return mean_of_rows(total, (labels != IGNORED).sum(), mode)


def regression_loss(values: Tensor, targets: Tensor, mode: GradientMode) -> Tensor:
    """Squared error of numbers.

    Args:
        values: [R, 1].
        targets: [R] numbers.
        mode: see `GradientMode`.

    Returns:
        Scalar mean over the rows.
    """
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    total = F.mse_loss(values[:, 0], targets.to(values.dtype), reduction="sum")
    return mean_of_rows(total, torch.tensor(len(targets), device=values.device), mode)
