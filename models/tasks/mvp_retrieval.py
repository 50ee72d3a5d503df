"""MVP fine-tuned for retrieval (arXiv 2201.12596, section 4.1): contrastive and matching losses, a matching head of its own.

Shapes: R pairs, L text positions, V regions, H width.
"""

from torch import Tensor, nn

from models.mvp.config import MvpConfig
from models.mvp.layers import initialize
from models.mvp.model import Mvp


class MvpRetriever(Mvp):
    """MVP with a new matching head over the pooled pair, whose output 1 stands for a match; the pre-trained head is not used again.

    Losses: `mvp_losses` with the objectives itc and itm. Ranking: candidates by `text_features` and `image_features`, then by `match`.
    """

    def __init__(self, config: MvpConfig, hidden: int | None = None) -> None:
        """A linear head as published, or one with a hidden layer of that width."""
        super().__init__(config, ("itc",))
        self.pooler = nn.Linear(config.width, config.width)
        self.dropout = nn.Dropout(config.dropout)
        if hidden is None:
            self.cls_head: nn.Module = nn.Linear(config.width, 2)
        else:
            self.cls_head = nn.Sequential(nn.Linear(config.width, hidden), nn.ReLU(), nn.Linear(hidden, 2))
        for part in (self.pooler, self.cls_head):
            part.apply(initialize)

    def match_logits(self, pooled: Tensor) -> Tensor:
        """Matching logits [R, 2]; class 1 is a match."""
        return self.cls_head(self.dropout(pooled))

    def match(self, text: Tensor, text_mask: Tensor, regions: Tensor, region_mask: Tensor) -> Tensor:
        """Matching logits [R, 2] of text states [R, L, H] with region states [R, V, H]."""
        return self.match_logits(self.pool(self.fuse(text, text_mask, regions, region_mask)[-1]))
