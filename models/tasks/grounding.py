"""Visual grounding by box regression (X-VLM section 4.4; X2-VLM section 4.2).

Shapes: R texts with one image each, L text tokens.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from common.distributed import GradientMode
from models.config import ModelConfig
from models.tasks.base import Batch, Task
from models.tasks.contrast import DIRECT, Contrast
from models.tasks.losses import stream_losses
from models.tasks.rows import row_counts
from models.vlm import FusionPass, VisionLanguageModel


class Grounding(Task):
    """Fine-tuning on referring expressions with their boxes."""

    def __init__(self, config: ModelConfig, weights: Mapping[str, float], mode: GradientMode) -> None:
        super().__init__()
        self.model = VisionLanguageModel(config, ["box"])
        self.weights = {f"train/{name}": weight for name, weight in weights.items()}
        self.mode: GradientMode = mode

    def forward(self, batches: Mapping[str, Batch], contrast: Contrast = DIRECT) -> dict[str, Tensor]:
        """Losses of one micro-batch, as "train/box_l1" and "train/box_giou"."""
        losses = stream_losses(self.model, batches["train"], ["box"], self.mode, contrast=contrast)
        return {f"train/{name}": value for name, value in losses.items()}

    def row_counts(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        """See `Task.row_counts`."""
        counts = row_counts(batches["train"], ["box"]) if self.mode == "exact" else {}
        return {f"train/{name}": count for name, count in counts.items()}


@torch.no_grad()
def predict_boxes(model: VisionLanguageModel, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Box of each text in its image.

    Args:
        model: encoders and box head.
        images: [R, 3, S, S] bytes or normalised.
        ids: [R, L] token ids.
        mask: [R, L] True for tokens.

    Returns:
        [R, 4] centre x, centre y, width, height relative to the image, in [0, 1].
    """
    vision = model.context(model.encode_images(images))
    return model.boxes(model.fuse(vision, [FusionPass(model.encode_text(ids, mask), mask, None, pooled=True)])[0]).float()
