"""The contract between a task and the engine."""

from collections.abc import Mapping

from torch import Tensor, nn

from models.vlm import VisionLanguageModel

Batch = Mapping[str, Tensor]
"""Documented keys to tensors, see dataset/streams/base.py."""


class Task(nn.Module):
    """A model with its losses. Subclasses implement `forward`, so that wrappers such as DDP see the whole computation."""

    model: VisionLanguageModel
    weights: dict[str, float]
    """Weight of each loss in the total, under the name that `forward` gives it."""

    def forward(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        """Losses of one micro-batch of every stream, as "stream/objective" -> scalar."""
        raise NotImplementedError
