"""Masked image modelling guided by vision-language learning (X-FM, arXiv 2301.05065, section 3.3).

The encoder sees an image with hidden patches and is to give what it gives for the whole image. The whole image's tokens come from the
same network, which image-text objectives train in the same step; no gradient flows into them.

Shapes: B images, N patches, D vision width, K codes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from common.distributed import GradientMode, mean_of_rows


def token_loss(predicted: Tensor, target: Tensor, hidden: Tensor, mode: GradientMode, pooled: bool = True) -> Tensor:
    """Mean squared error of the hidden patches' tokens and, added to it, that of the global token.

    Args:
        predicted: [B, 1+N, D] tokens of the images with hidden patches.
        target: [B, 1+N, D] tokens of the whole images; no gradient flows.
        hidden: [B, N] True for hidden patches.
        mode: see `GradientMode`.
        pooled: whether the global token counts.

    Returns:
        Scalar; the part of the patches is 0 where none is hidden.
    """
    dtype = torch.promote_types(predicted.dtype, torch.float32)
    error = (predicted.to(dtype) - target.detach().to(dtype)).square().mean(dim=2)  # [B, 1+N]
    patches = mean_of_rows(torch.where(hidden, error[:, 1:], 0.0).sum(), hidden.sum(), mode)
    return patches + error[:, 0].mean() if pooled else patches


def code_loss(logits: Tensor, codes: Tensor, hidden: Tensor, mode: GradientMode) -> Tensor:
    """Cross-entropy of the hidden patches' codes, as a visual tokenizer gives them for the whole image (BEiT-2, arXiv 2208.06366).

    Args:
        logits: [B, N, K].
        codes: [B, N] int64.
        hidden: [B, N] True for hidden patches.
        mode: see `GradientMode`.

    Returns:
        Scalar mean over the hidden patches; 0 where there are none.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none")
    return mean_of_rows(torch.where(hidden.flatten(), losses, 0.0).sum(), hidden.sum(), mode)
