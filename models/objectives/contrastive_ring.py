"""The contrastive loss of batches whose similarities are too many to store: [B, W*B] is never whole.

Similarities are made tile by tile. The features of the other ranks travel around a ring, one rank's at a time, and the log-sum-exp of every
row is accumulated on the way. The backward pass makes the tiles again; there the gradient of a rank's features travels behind them, every
rank adds its part, and after W steps it is home.

Shapes: B pairs on this rank, W ranks, E feature width. Both sides, images and texts, go in one tensor [2, B, E], so that there is one
message a step: the rows of side 0 look at the columns of side 1, and the other way round.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from common.distributed import RingShift, gather, rank, world_size

TILE = 2048
"""Rows and columns of the similarities that are in memory at once: 16 MiB in float32, a few times over."""
FEATURES, GRADIENTS = 0, 1
"""Tags of what travels."""


def ring_loss(image: Tensor, text: Tensor, temperature: Tensor, ids: Tensor | None, tile: int = TILE) -> Tensor:
    """Symmetric InfoNCE of this rank's rows against the columns of all ranks.

    Args:
        image: [B, E] normalised features, float32 or float64; every rank must bring the same B.
        text: [B, E] of the same type.
        temperature: scalar that divides the similarities.
        ids: [B] pairs with the same id are positives of one another, with equal weight; None when only the diagonal is.
        tile: rows and columns that are compared at once.

    Returns:
        Scalar; its gradients can be taken once.
    """
    rows = torch.arange(len(image), device=image.device) + rank() * len(image)
    everyone = gather(rows if ids is None else ids).unflatten(0, (world_size(), -1))
    return _RingLoss.apply(image, text, temperature, everyone, tile)  # pyright: ignore[reportReturnType]


class _Tile(NamedTuple):
    """Which rows look at which columns."""

    side: int
    """Of the rows; the columns are of the other."""
    rows: slice
    columns: slice
    equal: Tensor
    """[rows, columns] True for positives."""


class _RingLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, text: Tensor, temperature: Tensor, ids: Tensor, tile: int) -> Tensor:
        own = torch.stack([image, text])
        total = own.new_full(own.shape[:2], float("-inf"))  # [2, B] log-sum-exp so far
        positive, count = torch.zeros_like(total), torch.zeros_like(total)
        for owner, features in _turns(own):
            for part in _tiles(ids[rank()], ids[owner], tile):
                logits = _logits(own, features, temperature, part)
                at = part.side, part.rows
                total[at] = torch.logaddexp(total[at], logits.logsumexp(dim=1))
                positive[at] += torch.where(part.equal, logits, 0.0).sum(dim=1)
                count[at] += part.equal.sum(dim=1)
        ctx.save_for_backward(own, temperature, ids, total, count)
        ctx.tile = tile
        return (total - positive / count).mean()

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None]:
        own, temperature, ids, total, count = ctx.saved_tensors
        scale = grad_outputs[0] / (total.numel() * temperature)
        of_rows = torch.zeros_like(own)
        travelling = _TravellingSum()
        for owner, features in _turns(own):
            of_columns = torch.zeros_like(own)
            for part in _tiles(ids[rank()], ids[owner], ctx.tile):
                at, other = (part.side, part.rows), (1 - part.side, part.columns)
                error = _logits(own, features, temperature, part).sub_(total[at][:, None]).exp_()
                error -= part.equal / count[at][:, None]  # softmax less target: the gradient of the logits
                of_rows[at] += error @ features[other]
                of_columns[other] += error.T @ own[at]
            travelling.add(of_columns * scale)
        image, text = of_rows * scale + travelling.home()
        of_temperature = -(own * of_rows).sum() * scale / temperature  # the logits are rows times columns over the temperature
        return image, text, of_temperature, None, None


class _TravellingSum:
    """The gradient of a rank's features, which follows them around the ring and is added to on every rank."""

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.arriving: RingShift | None = None

    def add(self, part: Tensor) -> None:
        """Add what this rank asks of the features that it has just used, and send the sum on."""
        self.total = part if self.arriving is None else part + self.arriving.wait()
        if world_size() > 1:
            self.arriving = RingShift(self.total, GRADIENTS)

    def home(self) -> Tensor:
        """The sum for this rank's own features, which all ranks have used."""
        assert self.total is not None
        return self.total if self.arriving is None else self.arriving.wait()


def _turns(own: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Every rank with its features [2, B, E], this one first; the next are on their way while these are in use."""
    features, last = own, world_size() - 1
    for turn in range(world_size()):
        following = RingShift(features, FEATURES) if turn < last else None
        yield (rank() - turn) % world_size(), features
        if following is not None:
            features = following.wait()


def _tiles(row_ids: Tensor, column_ids: Tensor, tile: int) -> Iterator[_Tile]:
    """All comparisons of rows [B] with columns [B], of both sides."""
    size = len(row_ids)
    for first in range(0, size, tile):
        rows = slice(first, first + tile)
        for start in range(0, size, tile):
            columns = slice(start, start + tile)
            equal = row_ids[rows, None] == column_ids[None, columns]
            yield _Tile(0, rows, columns, equal)
            yield _Tile(1, rows, columns, equal)


def _logits(own: Tensor, columns: Tensor, temperature: Tensor, part: _Tile) -> Tensor:
    return own[part.side, part.rows] @ columns[1 - part.side, part.columns].T / temperature
