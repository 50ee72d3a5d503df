"""Multi-grained pre-training: every stream's objectives in one step (X2-VLM section 3.2)."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from common.distributed import GradientMode
from models.config import ModelConfig
from models.tasks.base import Batch, Task
from models.tasks.losses import stream_losses
from models.vlm import HEADS, VisionLanguageModel


@dataclass(frozen=True)
class StreamObjectives:
    """What is learned from one stream."""

    weight: float
    """Of the whole stream in the total."""
    objectives: Mapping[str, float]
    """Weight of each objective within the stream: itc, itm, mlm, box."""


class Pretraining(Task):
    """Sum of the objectives of all streams."""

    def __init__(self, config: ModelConfig, streams: Mapping[str, StreamObjectives], mode: GradientMode) -> None:
        super().__init__()
        self.streams = dict(streams)
        self.mode: GradientMode = mode
        used = {name for stream in streams.values() for name in stream.objectives}
        if "itm" in used:
            used.add("itc")  # matching draws its negatives by the contrastive features
        self.model = VisionLanguageModel(config, [head for head in HEADS if head in used])
        self.weights = {
            f"{name}/{loss}": stream.weight * weight
            for name, stream in streams.items()
            for objective, weight in stream.objectives.items()
            for loss in (("box_l1", "box_giou") if objective == "box" else (objective,))
        }

    def forward(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        """Losses of one micro-batch of every stream, as "stream/objective" -> scalar."""
        if hasattr(self.model, "temperature"):
            self.model.clamp_temperature()
        return {
            f"{name}/{loss}": value
            for name, batch in batches.items()
            for loss, value in stream_losses(self.model, batch, self.streams[name].objectives, self.mode).items()
        }
