"""The contract between a task and the engine."""

from collections.abc import Mapping

from torch import Tensor, nn

from models.tasks.contrast import DIRECT, Contrast
from models.vlm import VisionLanguageModel

Batch = Mapping[str, Tensor]
"""Documented keys to tensors, see dataset/streams/base.py."""


class Task(nn.Module):
    """A model with its losses. Subclasses implement `forward`, so that wrappers such as DDP see the whole computation."""

    model: VisionLanguageModel
    weights: dict[str, float]
    """Weight of each loss in the total, under the name that `forward` gives it."""
    contrasts: bool = False
    """Whether any loss compares all pairs of a step with one another."""

    def forward(self, batches: Mapping[str, Batch], contrast: Contrast = DIRECT) -> dict[str, Tensor]:
        """Losses of one micro-batch of every stream, as "stream/objective" -> scalar.

        Args:
            batches: by stream.
            contrast: makes the contrastive losses; where it `stops_at_features`, what is returned means nothing.
        """
        raise NotImplementedError

    def turns(self, batches: Mapping[str, Batch]) -> list[list[str]]:
        """Streams whose losses may be differentiated one after the other, so that the activations of one are gone before the next.

        The last turn reaches every parameter: gradients are summed over ranks in its backward pass.
        """
        return [list(batches)]

    def row_counts(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        """How many rows each loss is the mean of, where that depends on the data.

        Args:
            batches: as for `forward`, on any device.

        Returns:
            Scalars by the names of the losses. Without a count: losses over all rows, and all where ranks and micro-batches average over
            their own rows (gradient mode `paper`).
        """
        return {}

    def bounds(self) -> dict[str, tuple[float, float]]:
        """Least and greatest value of parameters that are kept in a range, by name; the engine pulls them back before each step."""
        return {f"model.{name}": bounds for name, bounds in self.model.bounds().items()}
