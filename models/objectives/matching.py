"""Image-text matching with in-batch hard negatives (X-VLM section 3.2; X2-VLM section 3.2).

Shapes: B pairs.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from common.distributed import GradientMode, mean_of_rows


def negative_weights(similarity: Tensor, same: Tensor) -> Tensor:
    """How likely each column is drawn as the negative of each row, up to a factor of the row: [B, B], 0 where `same`."""
    return similarity.detach().float().softmax(dim=1).add(1e-5).masked_fill(same, 0.0)


def hard_negatives(similarity: Tensor, same: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Draw one negative column for every row, likelier the more similar it looks; all rows at once, without a host sync.

    Args:
        similarity: [B, B] similarities divided by the temperature; rows are anchors, no gradient flows.
        same: [B, B] True where row and column are a true pair, or may not be paired for another reason.
        draws: [B] uniform numbers in [0, 1), one for each row: the draw is a pure function of them.

    Returns:
        index [B] of the drawn columns, and valid [B], False where a row has no negative at all (a batch of one, or of one image):
        its index means nothing and the loss leaves it out.
    """
    cumulative = negative_weights(similarity, same).double().cumsum(dim=1)
    total = cumulative[:, -1:]
    index = (cumulative <= draws.double()[:, None] * total).sum(dim=1).clamp(max=similarity.shape[1] - 1)
    return index, total.squeeze(1) > 0


def hard_negatives_one_by_one(similarity: Tensor, same: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """What `hard_negatives` gives, row by row with the host waiting, as published code draws: what the batched draw is measured against."""
    index, valid = torch.zeros(len(draws), dtype=torch.int64, device=draws.device), ~same.all(dim=1)
    for row, draw in enumerate(draws.tolist()):
        cumulative = negative_weights(similarity[row : row + 1], same[row : row + 1]).double().cumsum(dim=1)[0]
        below = int((cumulative <= draw * cumulative[-1]).sum().item())
        index[row] = min(below, len(cumulative) - 1)
    return index, valid


def hardest_negatives(similarity: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """The most similar negative column of every row (MVP section 3.3).

    Args:
        similarity: [B, B]; rows are anchors.
        same: [B, B] True where row and column may not be paired.

    Returns:
        index [B] and valid [B], as `hard_negatives`.
    """
    return similarity.detach().masked_fill(same, float("-inf")).argmax(dim=1), ~same.all(dim=1)


def inseparable(ids: Tensor, group: Tensor) -> Tensor:
    """Which rows may not be paired as wrong: those of one sample, and those of different groups.

    Args:
        ids: [B] equal for rows that describe the same thing.
        group: [B] negatives are of the same group.

    Returns:
        [B, B]
    """
    return (ids[:, None] == ids[None]) | (group[:, None] != group[None])


def itm_loss(logits: Tensor, matched: Tensor, valid: Tensor, mode: GradientMode) -> Tensor:
    """Two-class cross-entropy of true pairs and hard negatives.

    Args:
        logits: [K, 2]; class 1 means that image and text belong together.
        matched: [K] True for true pairs.
        valid: [K] False for rows that do not count.
        mode: see `GradientMode`.

    Returns:
        Scalar mean over the valid rows.
    """
    losses = F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), matched.long(), reduction="none")
    return mean_of_rows(torch.where(valid, losses, 0.0).sum(), valid.sum(), mode)
