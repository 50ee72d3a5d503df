"""Weakly supervised phrase grounding: phrases find regions of their own image rather than of another (MVP, arXiv 2201.12596, section 3.3).

Shapes: K pairs, L text positions, V regions, H width.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from common.distributed import GradientMode, mean_of_rows

CANDIDATES = 3
"""A phrase's similarity to an image is one of so many best regions', drawn at random, so that more than one region is taught."""


def grounding_scores(phrases: Tensor, phrase_mask: Tensor, regions: Tensor, region_mask: Tensor, draws: Tensor | None) -> Tensor:
    """How well the phrases of a text are found among the regions of an image.

    Args:
        phrases: [K, L, H] states of a text, of which only the phrases count.
        phrase_mask: [K, L] True for phrases.
        regions: [K, V, H] states of regions.
        region_mask: [K, V] True for regions, False for padding.
        draws: [K, L] uniform numbers in [0, 1) that choose among each phrase's best regions; None takes the best.

    Returns:
        [K] mean over phrases of the cosine with the chosen region; 0 where there is no phrase or no region.
    """
    dtype = torch.promote_types(phrases.dtype, torch.float32)
    with torch.autocast(phrases.device.type, enabled=False):
        cosines = F.normalize(phrases.to(dtype), dim=-1) @ F.normalize(regions.to(dtype), dim=-1).transpose(1, 2)  # [K, L, V]
    cosines = cosines.masked_fill(~region_mask[:, None], torch.finfo(dtype).min)
    best = cosines.topk(min(CANDIDATES, cosines.shape[2]), dim=2).values  # [K, L, up to 3]
    if draws is None:
        chosen = best[:, :, 0]
    else:
        count = region_mask.sum(dim=1).clamp(min=1, max=best.shape[2])[:, None]  # fewer regions than candidates: padding is none
        rank = (draws.double() * count).long().clamp(max=count - 1)
        chosen = best.gather(2, rank[:, :, None]).squeeze(2)
    counted = phrase_mask & region_mask.any(dim=1, keepdim=True)
    return torch.where(counted, chosen, 0.0).sum(dim=1) / counted.sum(dim=1).clamp(min=1)


def phrase_grounding_loss(positive: Tensor, negative: Tensor, valid: Tensor, margin: float, mode: GradientMode) -> Tensor:
    """Hinge loss: a text's phrases must fit its own image better than another by `margin`.

    Args:
        positive: [K] scores of texts with their own images.
        negative: [K] scores of the wrong pairs that they are compared with.
        valid: [K] False where either pair has no phrase, or there is no other image.
        margin: 0.2 in the published code.
        mode: see `GradientMode`.

    Returns:
        Scalar mean over the valid rows; 0 where there are none.
    """
    losses = (negative - positive + margin).clamp(min=0.0)
    return mean_of_rows(torch.where(valid, losses, 0.0).sum(), valid.sum(), mode)
