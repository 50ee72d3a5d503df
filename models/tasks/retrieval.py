"""Fine-tuning for image-text retrieval: contrastive and matching losses (X2-VLM section 4.2). How a gallery is ranked: ranking.py."""

from collections.abc import Mapping

from torch import Tensor

from common.distributed import GradientMode
from models.config import ModelConfig
from models.tasks.base import Batch, Task
from models.tasks.contrast import DIRECT, Contrast
from models.tasks.losses import CONTRASTIVE, stream_losses
from models.tasks.rows import row_counts
from models.vlm import VisionLanguageModel


class Retrieval(Task):
    """Fine-tuning on pairs."""

    def __init__(self, config: ModelConfig, weights: Mapping[str, float], mode: GradientMode) -> None:
        super().__init__()
        self.model = VisionLanguageModel(config, ["itc", "itm"])
        self.objectives = dict(weights)
        self.weights = {f"train/{name}": weight for name, weight in weights.items()}
        self.contrasts = not CONTRASTIVE.isdisjoint(weights)
        self.mode: GradientMode = mode

    def forward(self, batches: Mapping[str, Batch], contrast: Contrast = DIRECT) -> dict[str, Tensor]:
        """Losses of one micro-batch of pairs, as "train/itc" and "train/itm"."""
        contrast.begin("train")
        losses = stream_losses(self.model, batches["train"], self.objectives, self.mode, contrast=contrast)
        return {f"train/{name}": value for name, value in losses.items()}

    def row_counts(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        """See `Task.row_counts`."""
        counts = row_counts(batches["train"], self.objectives) if self.mode == "exact" else {}
        return {f"train/{name}": count for name, count in counts.items()}
