"""Multi-grained pre-training: every stream's objectives in one step (X2-VLM section 3.2)."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from common.distributed import GradientMode
from models.config import ModelConfig
from models.tasks.base import Batch, Task
from models.tasks.contrast import DIRECT, Contrast
from models.tasks.losses import AS_USUAL, CONTRASTIVE, Scores, Variants, stream_losses
from models.tasks.parallel import parallel_losses
from models.tasks.rows import row_counts
from models.vlm import ALL_HEADS, Head, VisionLanguageModel

HEADS_OF: Mapping[str, tuple[Head, ...]] = {
    "itm": ("itm", "itc"),  # matching draws its negatives by the contrastive features
    "ttc": ("itc",),
    "ttm": ("itm", "itc"),
    "tlm": ("mlm",),
}
"""The heads of objectives that need others than the one of their name."""


@dataclass(frozen=True)
class StreamObjectives:
    """What is learned from one stream."""

    weight: float
    """Of the whole stream in the total."""
    objectives: Mapping[str, float]
    """Weight of each objective within the stream: itc, itm, mlm, box, text_mlm, mim; ttc, ttm, mlm, tlm of parallel text."""
    variants: Variants = AS_USUAL


class Pretraining(Task):
    """Sum of the objectives of all streams."""

    def __init__(self, config: ModelConfig, streams: Mapping[str, StreamObjectives], mode: GradientMode) -> None:
        super().__init__()
        self.streams = dict(streams)
        self.mode: GradientMode = mode
        used = set().union(*map(self._heads, streams))
        self.model = VisionLanguageModel(config, [head for head in ALL_HEADS if head in used])
        self.contrasts = any(not CONTRASTIVE.isdisjoint(stream.objectives) for stream in streams.values())
        self.weights = {
            f"{name}/{loss}": stream.weight * weight
            for name, stream in streams.items()
            for objective, weight in stream.objectives.items()
            for loss in (("box_l1", "box_giou") if objective == "box" else (objective,))
        }

    def forward(self, batches: Mapping[str, Batch], contrast: Contrast = DIRECT) -> dict[str, Tensor]:
        """Losses of one micro-batch of every stream, as "stream/objective" -> scalar."""
        losses: dict[str, Tensor] = {}
        for name, batch in batches.items():
            contrast.begin(name)
            losses |= {f"{name}/{loss}": value for loss, value in self._losses(self.streams[name], batch, contrast).items()}
        return losses

    def turns(self, batches: Mapping[str, Batch]) -> list[list[str]]:
        """See `Task.turns`: each stream by itself, where the last one has all heads, images, and clips if any other has."""
        *others, last = batches
        shapes = {name: batch["image"].dim() for name, batch in batches.items() if "image" in batch}
        covers = last in shapes and shapes[last] == max(shapes.values()) and self._heads(last) == set().union(*map(self._heads, batches))
        # without one of these objectives the fusion encoder, or the text encoder, is not reached
        reaches = not {"itm", "mlm", "box"}.isdisjoint(self.streams[last].objectives)
        return [[name] for name in batches] if others and covers and reaches else [list(batches)]

    def _heads(self, stream: str) -> set[str]:
        return {head for name in self.streams[stream].objectives for head in HEADS_OF.get(name, (name,))}

    def row_counts(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        """See `Task.row_counts`."""
        if self.mode == "paper":
            return {}
        counts = {name: row_counts(batch, self.streams[name].objectives) for name, batch in batches.items()}
        return {f"{name}/{loss}": count for name, losses in counts.items() for loss, count in losses.items()}

    def _losses(self, stream: StreamObjectives, batch: Batch, contrast: Contrast) -> Scores:
        if "text_ids_2" in batch and "image" not in batch:
            return parallel_losses(self.model, batch, stream.objectives, self.mode, contrast)
        return stream_losses(self.model, batch, stream.objectives, self.mode, stream.variants, contrast)
