"""Image-text contrastive loss (X-VLM section 3.2; X2-VLM section 3.2).

Shapes: B pairs on this rank, W ranks, E feature width.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from common.distributed import GradientMode, gather, gather_with_grad, rank, world_size


def itc_loss(image: Tensor, text: Tensor, temperature: Tensor, ids: Tensor | None, mode: GradientMode) -> Tensor:
    """Symmetric InfoNCE over the pairs of all ranks; each rank computes the rows of its own pairs.

    Args:
        image: [B, E] normalised features, row i the partner of text i.
        text: [B, E] normalised features.
        temperature: scalar that divides the similarities.
        ids: [B] pairs with the same id are positives of one another, with equal weight; None when only the diagonal is.
        mode: see `GradientMode`.

    Returns:
        Scalar; averaged over ranks it is the loss of the whole batch.
    """
    with torch.autocast(image.device.type, enabled=False):  # half-precision similarities divided by 0.07 lose the order of near ties
        return _itc_loss(image.to(temperature.dtype), text.to(temperature.dtype), temperature, ids, mode)


def _itc_loss(image: Tensor, text: Tensor, temperature: Tensor, ids: Tensor | None, mode: GradientMode) -> Tensor:
    if mode == "paper" and world_size() > 1:
        image, text = (_scale_gradient(features, 1 / world_size()) for features in (image, text))
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
