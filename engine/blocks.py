"""What is done to each transformer block of a model for memory and speed."""

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any

import torch
import torch._dynamo.config as dynamo
from torch import nn
from torch.utils.checkpoint import checkpoint

Recomputed = bool | float
"""Which blocks are recomputed: all, none, or a share of each encoder's."""


def share_of(recomputed: Recomputed) -> float:
    """The share of blocks that a setting means."""
    return float(recomputed)


def recompute_blocks(encoders: Sequence[Sequence[nn.Module]], share: Recomputed) -> None:
    """Activation checkpointing: blocks keep only their inputs and compute the rest again in the backward pass, with the same dropout.

    Args:
        encoders: the blocks of each encoder, in order.
        share: of each encoder's blocks, spread evenly over its depth; False: none, True: all.
    """
    for blocks in encoders:
        for index, block in enumerate(blocks):
            if int((index + 1) * share) > int(index * share):
                block.forward = _recomputed(block.forward)


def compile_blocks(vision: list[nn.Module], others: list[nn.Module], graphs: bool = False) -> None:
    """Compile each block by itself: blocks of one kind share their code, and what surrounds them may do what compilers cannot.

    Blocks that share code still differ, in their rate of stochastic depth for one, and the compiler gives up after a number of versions.

    Args:
        vision: blocks whose inputs always have the same shape.
        others: blocks whose number of tokens changes with the texts: compiled once for all numbers, not once for each.
        graphs: replay the vision blocks as CUDA graphs; see `begin_graphs`.
    """
    count = len(vision) + len(others)
    dynamo.recompile_limit = max(dynamo.recompile_limit, 8 * count)
    dynamo.accumulated_recompile_limit = max(dynamo.accumulated_recompile_limit, 32 * count)
    for block in vision:
        block.compile(dynamic=False, mode="reduce-overhead" if graphs else None)
    for block in others:
        block.compile(dynamic=True)


def begin_graphs() -> None:
    """Say that a forward pass begins: what CUDA graphs gave in the one before may now be overwritten."""
    torch.compiler.cudagraph_mark_step_begin()


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(forward)
    def call(*arguments: Any, **named: Any) -> Any:
        return checkpoint(partial(forward, **named), *arguments, use_reentrant=False)

    return call
