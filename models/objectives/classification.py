"""Classification: one label a row.

Shapes: R rows, C classes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from common.distributed import GradientMode, mean_of_rows
from common.labels import IGNORED


def classification_loss(logits: Tensor, labels: Tensor, mode: GradientMode) -> Tensor:
    """Cross-entropy of rows that have a label.

    Args:
        logits: [R, C].
        labels: [R] class of each row; IGNORED rows do not count.
        mode: see `GradientMode`.

    Returns:
        Scalar mean over the rows with a label; 0 where there are none.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    total = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
    return mean_of_rows(total, (labels != IGNORED).sum(), mode)
