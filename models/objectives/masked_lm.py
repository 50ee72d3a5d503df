"""Masked language modelling with the image in view (X-VLM section 3.2; X2-VLM section 3.2).

Shapes: R texts, M masked positions, V vocabulary.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from common.distributed import GradientMode, mean_of_rows
from common.labels import IGNORED


def mlm_loss(logits: Tensor, labels: Tensor, mode: GradientMode) -> Tensor:
    """Cross-entropy at the masked positions.

    Args:
        logits: [R, M, V].
        labels: [R, M] the hidden tokens; IGNORED pads.
        mode: see `GradientMode`.

    Returns:
        Scalar mean over the masked tokens; 0 where there are none.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    total = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
    return mean_of_rows(total, (labels != IGNORED).sum(), mode)
