"""Pictures of a region stream's own samples, for pre-training runs without held-out boxes."""

import numpy as np
import torch
from torch import Tensor

from dataset.batches import MixedBatches
from dataset.streams.base import Stream
from engine.evaluators.base import Inputs
from evaluation.grounding import iou
from evaluation.report import BoxPanel, ReportPanels
from models.tasks.grounding import predict_boxes
from models.vlm import VisionLanguageModel


class RegionPictures:
    """Predicted against true boxes on training regions. Gives no numbers: it looks at what was trained on."""

    def __init__(self, stream: Stream, inputs: Inputs, seed: int) -> None:
        self.batches = MixedBatches({"regions": stream}, seed)
        self.inputs = inputs

    def __call__(self, model: VisionLanguageModel) -> dict[str, float]:
        """No metrics."""
        return {}

    def baselines(self) -> dict[str, dict[str, float]]:
        """No baselines."""
        return {}

    def panels(self, model: VisionLanguageModel, samples: int) -> ReportPanels:
        """One region each of the first images of the stream's order."""
        batch = {key: value.to(self.inputs.device) for key, value in self.batches[0]["regions"].tensors.items()}
        first: dict[int, int] = {}  # image -> its first region
        for row, (image, whole) in enumerate(zip(batch["image_index"].tolist(), batch["is_image"].tolist(), strict=True)):
            if not whole:
                first.setdefault(image, row)
        rows = list(first.values())[:samples]
        if not rows:
            return ReportPanels()
        images = batch["image"][batch["image_index"][rows]]
        predicted = predict_boxes(model, images, batch["text_ids"][rows], batch["text_mask"][rows])
        texts = self.inputs.tokenizer.batch_decode(batch["text_ids"][rows].tolist(), skip_special_tokens=True)
        pairs = zip(images.cpu(), texts, _to_pixels(predicted, images), _to_pixels(batch["target_box"][rows], images), strict=True)
        return ReportPanels(
            boxes=[
                BoxPanel(image.permute(1, 2, 0).numpy(), text, found.tolist(), true.tolist(), float(iou(found, true)))
                for image, text, found, true in pairs
            ]
        )


def _to_pixels(boxes: Tensor, images: Tensor) -> np.ndarray:
    """Relative centre x, centre y, width, height [R, 4] as x, y, width, height in pixels of the square images."""
    boxes = boxes.cpu() * images.shape[-1]
    return torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]], dim=1).numpy()
