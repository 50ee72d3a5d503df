"""Pre-training of MVP from pixels or region features: every stream's objectives in one step (arXiv 2201.12596, section 3.3)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from common.distributed import GradientMode
from models.config import ModelConfig
from models.mvp.pixels import PixelMvp
from models.objectives.matching import inseparable
from models.objectives.phrase_grounding import cosines
from models.tasks.base import Batch, Task
from models.tasks.contrast import DIRECT, Contrast
from models.tasks.mvp import mvp_losses
from models.tasks.pretrain import StreamObjectives
from models.tasks.rows import row_counts


class ConceptPretraining(Task):
    """Sum of the objectives of all streams. Stage 1 of two is a recipe without itm, mlm and phrase_grounding: nothing is fused then."""

    # the engine asks of a model its stacks, blocks, bounds and config, which the two kinds of models have alike
    model: PixelMvp  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, config: ModelConfig, streams: Mapping[str, StreamObjectives], mode: GradientMode) -> None:
        super().__init__()
        assert config.mvp is not None, "a recipe with streams of concepts has model.mvp"
        self.streams = dict(streams)
        self.mode: GradientMode = mode
        self.learning = config.mvp.learning
        used = {name for stream in streams.values() for name in stream.objectives}
        self.model = PixelMvp(config, used)  # pyright: ignore[reportIncompatibleVariableOverride]
        self.weights = {
            f"{name}/{objective}": stream.weight * weight
            for name, stream in streams.items()
            for objective, weight in stream.objectives.items()
        }

    def forward(self, batches: Mapping[str, Batch], contrast: Contrast = DIRECT) -> dict[str, Tensor]:
        """See `Task`; pairs are compared within a micro-batch, whatever `contrast` says (`contrasts` is False)."""
        losses: dict[str, Tensor] = {}
        for name, batch in batches.items():
            objectives = self.streams[name].objectives
            found = mvp_losses(self.model.mvp, self.model.with_regions(batch), objectives, self.learning, self.mode)
            losses |= {f"{name}/{objective}": value for objective, value in found.items()}
        return losses

    def row_counts(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        """See `Task.row_counts`."""
        if self.mode == "paper":
            return {}
        counts = {name: self._counts(name, batch) for name, batch in batches.items()}
        return {f"{name}/{loss}": count for name, losses in counts.items() for loss, count in losses.items()}

    def _counts(self, name: str, batch: Batch) -> dict[str, Tensor]:
        objectives = set(self.streams[name].objectives)
        counts = row_counts(batch, objectives & {"mlm", "concepts", "phrases"})
        partnered = (~inseparable(batch["sample_ids"], batch["group"])).any(dim=1)  # [R]
        if "itm" in objectives:
            counts["itm"] = len(partnered) + partnered.sum()
        if "phrase_grounding" in objectives:  # for hard negatives as if every text had phrases: only the model knows the wrong ones
            counts["phrase_grounding"] = (batch["phrase_mask"].any(dim=1) & partnered).sum()
        return counts


@torch.no_grad()
def phrase_similarities(model: PixelMvp, batch: Batch, layer: int | None = None) -> Tensor:
    """How near every text position is to every region of its image, where phrase grounding compares them.

    Args:
        model: with a joint encoder, or after the first of two stages, when the two encoders' own states are compared.
        batch: texts, tags and regions, see models/tasks/mvp.py.
        layer: of the joint encoder; None: that of training.

    Returns:
        [R, L, V] cosines.
    """
    mvp, batch = model.mvp, model.with_regions(batch)
    text = mvp.encode_text(batch["text_ids"], batch["text_mask"])
    _, regions = mvp.encode_image(batch["tag_ids"], batch["tag_mask"], batch["regions"], batch["region_mask"])
    if len(mvp.joint_encoder.layers):
        settings = model.config.mvp
        assert settings is not None, "the model was built from it"
        joint = mvp.fuse(text, batch["text_mask"], regions, batch["region_mask"])
        fused = joint[settings.learning.grounding_layer if layer is None else layer]
        text, regions = fused[:, : text.shape[1]], fused[:, text.shape[1] :]
    return cosines(text, regions, batch["region_mask"])
