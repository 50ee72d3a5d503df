"""Ranks and collectives that also work with no process group at all (one process)."""

from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

GradientMode = Literal["exact", "paper"]
"""`exact`: losses and gradients do not depend on the number of ranks, nor of accumulated micro-batches. `paper`: the scaling of the
published code, in which every rank and micro-batch averages over its own rows and the contrastive gradient that reaches the encoders is
divided by the number of ranks."""


def world_size() -> int:
    """Number of ranks; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's rank; 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def is_main() -> bool:
    """True on the one rank that writes files and talks to the user."""
    return rank() == 0


def barrier() -> None:
    """Wait for all ranks."""
    if world_size() > 1:
        dist.barrier()


class _GatherRows(torch.autograd.Function):
    """Concatenate the rows of all ranks; the backward pass sums what all ranks ask of each row and keeps this rank's rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        gathered = [torch.empty_like(rows) for _ in range(world_size())]
        dist.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        # gloo has no reduce-scatter, so the sum is taken over the whole and sliced
        total = grad_outputs[0].contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(world_size())[rank()]


def gather_with_grad(rows: Tensor) -> Tensor:
    """All ranks' rows in rank order, differentiable: [B, ...] -> [W*B, ...]. Every rank must bring the same B."""
    return rows if world_size() == 1 else _GatherRows.apply(rows)  # pyright: ignore[reportReturnType]


def gather(rows: Tensor) -> Tensor:
    """All ranks' rows in rank order, without gradient: [B, ...] -> [W*B, ...]. Every rank must bring the same B."""
    if world_size() == 1:
        return rows
    gathered = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(gathered, rows.contiguous())
    return torch.cat(gathered)


class RingShift:
    """A tensor on its way to the next rank, while that of the previous rank arrives here.

    Every rank must start the same shifts, of tensors of one shape, in the same order. Two that are under way at once need different tags.

    Args:
        outgoing: what the next rank is to get; it must not change before `wait`.
        tag: tells shifts apart.
    """

    def __init__(self, outgoing: Tensor, tag: int = 0) -> None:
        self.outgoing = outgoing.contiguous()
        self.incoming = torch.empty_like(self.outgoing)
        after, before = (rank() + 1) % world_size(), (rank() - 1) % world_size()
        transfers = [dist.P2POp(dist.isend, self.outgoing, after, tag=tag), dist.P2POp(dist.irecv, self.incoming, before, tag=tag)]
        self.works = dist.batch_isend_irecv(transfers)

    def wait(self) -> Tensor:
        """What has arrived; on an accelerator the device waits and not the host."""
        for work in self.works:
            work.wait()
        return self.incoming


def gather_objects(value: Any, group: Any = None) -> list[Any]:
    """One Python object of every rank, in rank order, on every rank; over a process group of all ranks, by default the usual one.

    For evaluation results, not for the hot loop.
    """
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value, group)
    return values


def broadcast_object(value: Any) -> Any:
    """Rank 0's Python object, on every rank; what the others bring is ignored. Not for the hot loop."""
    if world_size() == 1:
        return value
    values = [value if rank() == 0 else None]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def sum_over_ranks(value: Tensor) -> Tensor:
    """Sum of a tensor over the ranks, without gradient; the tensor itself with one process."""
    if world_size() == 1:
        return value.detach()
    total = value.detach().clone()
    dist.all_reduce(total)
    return total


def mean_of_rows(total: Tensor, count: Tensor, mode: GradientMode) -> Tensor:
    """Turn this rank's sum over rows into its share of the mean, so that averaging gradients over ranks gives the right mean.

    Args:
        total: scalar, sum of the losses of this rank's rows.
        count: scalar, how many rows that was; may be 0.
        mode: `exact` divides by the mean count over ranks, so that the average over ranks is the mean over all rows of all ranks;
            `paper` divides by this rank's own count.

    Returns:
        Scalar loss; 0 with a gradient path where there are no rows.
    """
    count = count.to(total.dtype)
    if mode == "exact" and world_size() > 1:
        count = sum_over_ranks(count) / world_size()
    return total / count.clamp(min=torch.finfo(total.dtype).tiny if mode == "exact" else 1.0)
