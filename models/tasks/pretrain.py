"""Multi-grained pre-training: every stream's objectives in one step (X2-VLM section 3.2)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.distributed import GradientMode
from common.labels import NO_MATCHING
from models.config import ModelConfig
from models.tasks.base import Batch, Task
from models.tasks.contrast import DIRECT, Contrast
from models.tasks.losses import AS_USUAL, CONTRASTIVE, FUSED, Scores, Variants, stream_losses
from models.tasks.parallel import parallel_losses
from models.tasks.rows import row_counts
from models.vlm import ALL_HEADS, Head, VisionLanguageModel

HEADS_OF: Mapping[str, tuple[Head, ...]] = {
    "ttc": ("itc",),
    "ttm": ("itm",),
    "tlm": ("mlm",),
}
"""The heads that objectives train, where it is not the one of their name."""
DRAWN_BY_FEATURES = {"itm", "ttm"}
"""Objectives that draw negatives by the contrastive features, whose head they need and do not train."""


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
        if any(not DRAWN_BY_FEATURES.isdisjoint(stream.objectives) for stream in streams.values()):
            used.add("itc")
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
        """See `Task.turns`: each stream by itself, where the last one trains all heads and has images. What belongs to clips alone is
        reached by streams of images too, see `_losses`."""
        *others, last = batches
        covers = "image" in batches[last] and self._heads(last) == set().union(*map(self._heads, batches))
        return [[name] for name in batches] if others and covers and self._reaches_encoders(last) else [list(batches)]

    def _reaches_encoders(self, stream: str) -> bool:
        """Whether the losses of a stream with images reach the fusion encoder and the text encoder."""
        objectives, stopped = set(self.streams[stream].objectives), self.streams[stream].variants.stop_text_gradient
        fused = objectives & FUSED
        return bool(fused) and bool(fused - stopped or objectives & {"itc", "text_mlm"})

    def _heads(self, stream: str) -> set[str]:
        """What the losses of a stream train."""
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
        objectives = stream.objectives
        if NO_MATCHING in batch:
            objectives = {name: weight for name, weight in objectives.items() if name != "itm"}
        scores = stream_losses(self.model, batch, objectives, self.mode, stream.variants, contrast)
        if contrast.stops_at_features:
            return scores
        if len(objectives) < len(stream.objectives):
            scores["itm"] = _nothing(self.model.itm_head)
        if self.model.frames is not None and scores and ("image" not in batch or batch["image"].dim() == 4):
            first = next(iter(scores))
            scores[first] = scores[first] + _nothing(self.model.frames)
        return scores


def _nothing(part: nn.Module) -> Tensor:
    """0, with a gradient of 0 for every parameter: ranks that average gradients expect one of all that is trained."""
    return torch.stack([parameter.sum() for parameter in part.parameters()]).sum() * 0.0
