"""The largest batch that fits, for each rung of the ladder of activation checkpointing.

Texts are those of the first stream on one GPU in one micro-batch; the other streams grow with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.config.schema import RunConfig
from engine.planning.fake import FakeStep
from engine.planning.shapes import Shapes, share
from engine.planning.states import States, model_states
from models.objectives.contrastive import STORED_LOGITS

SHARES: Sequence[float] = (0.0, 0.5, 0.75, 1.0)
"""Rungs: values of engine.activation_checkpointing."""
CONTEXT_BYTES = round(0.9 * 2**30)
"""Allowance, not counted: CUDA context and kernels (0.5 to 0.6 GiB on an A100 or H100), workspaces of cuBLAS and cuDNN."""
COMMUNICATION_BYTES = round(0.5 * 2**30)
"""Allowance for NCCL's buffers, with more than one GPU."""
KEPT_FREE = 0.08
"""Share of the memory left free, against fragmentation of the allocator."""
CONTRAST_COPIES = 8
"""How often a matrix of similarities stands in memory (see `models.objectives.contrastive.STORED_LOGITS`)."""


@dataclass(frozen=True)
class Rung:
    """Memory of a step as a function of the batch, with a share of the blocks recomputed."""

    share: float
    fixed: float
    """Bytes that do not grow with the batch: copies of the weights in bf16, temporaries."""
    per_text: float
    """Bytes of activations at the peak, for each text."""
    kept_per_text: float
    """Of them what is kept for the backward pass."""

    def peak(self, texts: int) -> float:
        """Bytes beyond states and contrast."""
        return self.fixed + self.per_text * texts


@dataclass(frozen=True)
class Memory:
    """What one GPU holds."""

    states: States
    allowance: States
    contrasted: int
    """Contrastive losses of a step."""
    features: int
    """Width of their features."""
    world: int

    def contrast(self, texts: int) -> int:
        """Bytes of features gathered over all ranks and of similarities with them, beyond those of one rank."""
        logits = min(texts * texts * (self.world - 1), STORED_LOGITS)
        return self.contrasted * 4 * (CONTRAST_COPIES * logits + 2 * texts * (self.world - 1) * self.features)

    def total(self, rung: Rung, texts: int) -> float:
        """Bytes of a step with so many texts."""
        return sum(self.states.values()) + sum(self.allowance.values()) + self.contrast(texts) + rung.peak(texts)

    def largest(self, rung: Rung, available: float) -> int:
        """Most texts that fit into so many bytes; 0 where not one does."""
        low, high = 0, 1
        while self.total(rung, high) <= available and high < 1 << 24:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.total(rung, middle) <= available else (low, middle)
        return low


def measure_rung(step: FakeStep, longest: Shapes, texts: int, recomputed: float) -> Rung:
    """Take the memory of two batches, of `texts` and half of them, and the straight line through both."""
    sizes = max(texts // 2, 1), max(texts, 2)
    small, large = (step.memory(share(longest, size), recomputed) for size in sizes)
    width = sizes[1] - sizes[0]
    per_text = (large.peak - small.peak) / width
    return Rung(recomputed, large.peak - per_text * sizes[1], per_text, (large.kept - small.kept) / width)


def memory_of(config: RunConfig, step: FakeStep, world: int) -> Memory:
    """What a config's GPUs hold whatever the batch."""
    allowance = {"CUDA context, libraries": CONTEXT_BYTES} | ({"NCCL": COMMUNICATION_BYTES} if world > 1 else {})
    contrasted = len(config.batches()) if "itc" in config.objective_names() else 0
    return Memory(model_states(step.task(), config.engine, world), allowance, contrasted, config.model.projection_dim, world)
