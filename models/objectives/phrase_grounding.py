"""Weakly supervised phrase grounding: phrases find regions of their own image rather than of another (MVP, arXiv 2201.12596, section 3.3).

Shapes: K pairs, L text positions, V regions, H width.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from common.distributed import GradientMode, mean_of_rows
from models.mvp.learning import Candidates

CANDIDATES = 3
"""A phrase's similarity to an image is one of so many best regions', drawn at random, so that more than one region is taught."""


def cosines(phrases: Tensor, regions: Tensor, region_mask: Tensor) -> Tensor:
    """Cosine of each text position [K, L, H] with each region [K, V, H]: [K, L, V], the least number there is at padding."""
    dtype = torch.promote_types(phrases.dtype, torch.float32)
    with torch.autocast(phrases.device.type, enabled=False):
        similarity = F.normalize(phrases.to(dtype), dim=-1) @ F.normalize(regions.to(dtype), dim=-1).transpose(1, 2)
    return similarity.masked_fill(~region_mask[:, None], torch.finfo(dtype).min)


def grounding_scores(
    phrases: Tensor, phrase_mask: Tensor, regions: Tensor, region_mask: Tensor, draws: Tensor | None, candidates: Candidates = "random"
) -> Tensor:
    """How well the phrases of a text are found among the regions of an image.

    Args:
        phrases: [K, L, H] states of a text, of which only the phrases count.
        phrase_mask: [K, L] True for phrases.
        regions: [K, V, H] states of regions.
        region_mask: [K, V] True for regions, False for padding.
        draws: [K, L] uniform numbers in [0, 1) that choose among each phrase's best regions; None takes the best.
        candidates: how the best regions count.

    Returns:
        [K] mean over phrases of the cosine with the chosen region; 0 where there is no phrase or no region.
    """
    similarity = cosines(phrases, regions, region_mask)
    best = similarity.topk(min(CANDIDATES, similarity.shape[2]), dim=2).values  # [K, L, up to 3]
    count = region_mask.sum(dim=1).clamp(min=1, max=best.shape[2])[:, None]  # [K, 1] fewer regions than candidates: padding is none
    if candidates == "mean":
        counts = torch.arange(best.shape[2], device=best.device) < count  # [K, up to 3]
        chosen = torch.where(counts[:, None], best, 0.0).sum(dim=2) / count
    elif candidates == "max" or draws is None:
        chosen = best[:, :, 0]
    else:
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
