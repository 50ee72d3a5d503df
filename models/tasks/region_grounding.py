"""Visual grounding by ranking an image's candidate boxes, from pixels (MVP, arXiv 2201.12596, and its code for RefCOCO+).

Keys of a batch are those of models/tasks/mvp.py for texts, tags and regions, these as `region_boxes` [R, V, 4] with `image`, and for the
loss `target_box` [R, 4]: the true box as centre x, centre y, width, height, shares of the image.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from common.distributed import GradientMode
from models.config import ModelConfig
from models.mvp.pixels import PixelEncoders, mvp_config
from models.objectives.region_ranking import region_overlaps
from models.tasks.base import Batch, Task
from models.tasks.contrast import DIRECT, Contrast
from models.tasks.mvp_referring import MvpReferrer, RegionScore, chosen_regions, referring_loss

LOSS = "train/region_ranking"


class RegionGrounding(Task):
    """Fine-tuning on referring expressions with their boxes and candidates."""

    # as in ConceptPretraining: what the engine asks of a model both kinds have
    model: PixelEncoders  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, config: ModelConfig, score: RegionScore, layer: int, mode: GradientMode) -> None:
        """See `MvpReferrer` for `score` and `layer`; what the joint encoder has behind that layer is kept and stays as it is."""
        super().__init__()
        self.model = PixelEncoders(config, lambda: MvpReferrer(mvp_config(config, True), score, layer))  # pyright: ignore[reportIncompatibleVariableOverride]
        layers = [*self.model.mvp.joint_encoder.layers]
        for unused in layers[layer % len(layers) + 1 :]:
            unused.requires_grad_(False)
        self.weights = {LOSS: 1.0}
        self.score: RegionScore = score
        self.mode: GradientMode = mode

    def forward(self, batches: Mapping[str, Batch], contrast: Contrast = DIRECT) -> dict[str, Tensor]:
        """See `Task`; the loss of one micro-batch, see `RegionScore`."""
        batch = batches["train"]
        overlaps = region_overlaps(batch["region_boxes"], batch["target_box"])
        return {LOSS: referring_loss(region_scores(self.model, batch), {**batch, "overlaps": overlaps}, self.score, self.mode)}

    def row_counts(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        """See `Task.row_counts`; the rows are regions."""
        return {LOSS: batches["train"]["region_mask"].sum()} if self.mode == "exact" else {}


def region_scores(model: PixelEncoders, batch: Batch) -> Tensor:
    """[R, V] how well each candidate fits the text, see `MvpReferrer.region_scores`."""
    assert isinstance(model.mvp, MvpReferrer), "RegionGrounding builds it so"
    return model.mvp.region_scores(model.with_regions(batch))


@torch.no_grad()
def best_regions(model: PixelEncoders, batch: Batch) -> Tensor:
    """[R] number of the candidate that each text means."""
    return chosen_regions(region_scores(model, batch), batch["region_mask"])
