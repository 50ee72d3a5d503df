"""MVP on referring expressions: which of a detector's regions does the text mean? (arXiv 2201.12596, its code for RefCOCO+)

Keys of a batch are those of models/tasks/mvp.py for texts, tags and regions, and for the loss `overlaps`, float [R, V]: the IoU of every
region with the true box. Texts have no phrases here, as published.

Shapes: R texts, L text positions, V regions, H width.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.distributed import GradientMode
from models.mvp.config import MvpConfig
from models.mvp.layers import initialize
from models.mvp.model import Mvp, MvpHead
from models.objectives.region_ranking import FOUND, choice_loss, overlap_loss
from models.tasks.base import Batch

RegionScore = Literal["cosine", "product", "linear"]
"""How a region is scored (official `loss_mod` 1, 2, 3). cosine: with the state of [CLS], taught the IoU by squared difference. product:
their inner product, taught whether the IoU is half or more. linear: a head over the region's state, taught the IoU by cross-entropy."""


class MvpReferrer(Mvp):
    """MVP whose joint encoder tells regions apart."""

    def __init__(self, config: MvpConfig, score: RegionScore = "cosine", layer: int = 2, heads: tuple[MvpHead, ...] = ()) -> None:
        """See `RegionScore`; states are those after joint layer `layer`, from 0, negative counted from the last; 2 as published."""
        super().__init__(config, heads)
        self.score: RegionScore = score
        self.layer = layer
        if score == "linear":
            self.cls_head = nn.Linear(config.width, 1)
            initialize(self.cls_head)

    def region_states(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """States [R, H] of [CLS] and [R, V, H] of the regions, fused with each other."""
        text = self.encode_text(batch["text_ids"], batch["text_mask"], batch.get("text_types"))
        _, regions = self.encode_image(batch["tag_ids"], batch["tag_mask"], batch["regions"], batch["region_mask"], batch.get("tag_types"))
        joint = self.fuse(text, batch["text_mask"], regions, batch["region_mask"])[self.layer]
        return joint[:, 0], joint[:, text.shape[1] :]

    def region_scores(self, batch: Batch) -> Tensor:
        """[R, V] how well each region fits the text: a cosine, or a logit; padding means nothing."""
        text, regions = self.region_states(batch)
        if self.score == "linear":
            return self.cls_head(regions).squeeze(-1)
        if self.score == "cosine":
            text, regions = (F.normalize(states, dim=-1) for states in (text, regions))
        return (regions @ text[:, :, None]).squeeze(-1)


def referring_loss(scores: Tensor, batch: Batch, score: RegionScore, mode: GradientMode) -> Tensor:
    """Scalar loss of scores [R, V]; see `RegionScore`."""
    overlaps, mask = batch["overlaps"], batch["region_mask"]
    match score:
        case "cosine":
            return overlap_loss(scores, overlaps, mask, mode)
        case "product":
            return choice_loss(scores, overlaps >= FOUND, mask, mode)
        case "linear":
            return choice_loss(scores, overlaps, mask, mode)


@torch.no_grad()
def chosen_regions(scores: Tensor, region_mask: Tensor) -> Tensor:
    """[R] number of the best region of each text, of scores [R, V]; 0 where there is none."""
    return scores.masked_fill(~region_mask, float("-inf")).argmax(dim=1)
