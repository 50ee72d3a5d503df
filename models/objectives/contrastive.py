"""Image-text contrastive loss (X-VLM section 3.2; X2-VLM section 3.2).

Shapes: B pairs on this rank, W ranks, E feature width.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from common.distributed import GradientMode, gather, gather_with_grad, rank, world_size
from models.objectives.contrastive_ring import TILE, ring_loss

STORED_LOGITS = 1 << 23
"""Similarities of one rank's images to all texts, B times W*B, that are stored whole: 32 MiB in float32, about eight times over until the
backward pass is through. More are made tile by tile, once in each pass."""


def itc_loss(
    image: Tensor,
    text: Tensor,
    temperature: Tensor,
    ids: Tensor | None,
    mode: GradientMode,
    stored_logits: int = STORED_LOGITS,
    tile: int = TILE,
) -> Tensor:
    """Symmetric InfoNCE over the pairs of all ranks; each rank computes the rows of its own pairs.

    Args:
        image: [B, E] normalised features, row i the partner of text i. Every rank must bring the same B.
        text: [B, E] normalised features.
        temperature: scalar that divides the similarities.
        ids: [B] pairs with the same id are positives of one another, with equal weight; None when only the diagonal is.
        mode: see `GradientMode`.
        stored_logits: above so many similarities the loss takes the way of `contrastive_ring`; the result is the same to rounding.
        tile: rows and columns that are then compared at once.

    Returns:
        Scalar; averaged over ranks it is the loss of the whole batch.
    """
    with torch.autocast(image.device.type, enabled=False):  # half-precision similarities divided by 0.07 lose the order of near ties
        dtype = torch.promote_types(temperature.dtype, torch.float32)
        image, text, temperature = image.to(dtype), text.to(dtype), temperature.to(dtype)
        if mode == "paper" and world_size() > 1:
            image, text = (_scale_gradient(features, 1 / world_size()) for features in (image, text))
        if len(image) ** 2 * world_size() > stored_logits:
            return ring_loss(image, text, temperature, ids, tile)
        return _gathered_loss(image, text, temperature, ids)


def _gathered_loss(image: Tensor, text: Tensor, temperature: Tensor, ids: Tensor | None) -> Tensor:
    all_image, all_text = gather_with_grad(image), gather_with_grad(text)
    if ids is None:
        target = torch.arange(len(image), device=image.device) + rank() * len(image)
    else:
        equal = (ids[:, None] == gather(ids)[None]).to(image.dtype)
        target = equal / equal.sum(dim=1, keepdim=True)
    image_loss = F.cross_entropy(image @ all_text.T / temperature, target)
    text_loss = F.cross_entropy(text @ all_image.T / temperature, target)
    return (image_loss + text_loss) / 2


def _scale_gradient(values: Tensor, factor: float) -> Tensor:
    return values * factor + values.detach() * (1 - factor)
