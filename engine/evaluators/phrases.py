"""Which regions phrases find, as weakly supervised phrase grounding taught them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataset.concept_text import region_tensors
from dataset.streams.base import image_tensor
from dataset.streams.concepts import Concepts
from dataset.tasks.phrases import Mention, PhraseItem, PhraseSet
from engine.config.concepts import PhraseProbe
from engine.evaluators.base import Inputs, share_of, spread
from evaluation.grounding import iou
from evaluation.phrases import phrase_metrics, random_region, region_hits
from evaluation.report import BoxPanel, ReportPanels
from models.mvp.pixels import PixelMvp
from models.tasks.concepts import phrase_similarities
from models.vlm import VisionLanguageModel

Hits = tuple[NDArray[np.bool_], NDArray[np.bool_]]
"""Of a phrase's regions, see `region_hits`."""


@dataclass(frozen=True)
class Found:
    """A phrase and the similarity [V] of each region of its image."""

    mention: Mention
    scores: NDArray[np.float32]


class PhraseEvaluator:
    """Ranks the regions of an image by their mean cosine with what stands for a phrase, after the two sides have met."""

    def __init__(self, stream: Concepts, inputs: Inputs, settings: PhraseProbe) -> None:
        """Open the phrases; texts, tags and, unless the settings say otherwise, regions are made as the stream makes them."""
        split = None if settings.split is None else Path(settings.split)
        place = Path(settings.file), Path(settings.image_root)
        self.data = PhraseSet(*place, stream.config, stream.texts, inputs.image_size, settings.regions, split)
        self.texts = stream.texts
        self.inputs = inputs
        self.settings = settings

    def __call__(self, model: VisionLanguageModel) -> dict[str, float]:
        """Pointing accuracy and recall of the best 1, 5 and 10 regions at IoU 0.5, in percent."""
        hits: list[Hits] = []
        for items in self.inputs.stoppable(self._batches(list(share_of(len(self.data))))):
            for item, found in zip(items, self._search(model, items), strict=True):
                for row in found:
                    order = np.argsort(-row.scores, kind="stable")
                    pointed, near = region_hits(item.regions, row.mention.boxes)
                    hits.append((pointed[order], near[order]))
        return phrase_metrics([hit for part in self.inputs.interruption.gather(hits) for hit in part])

    def baselines(self) -> dict[str, dict[str, float]]:
        """Regions in random order."""
        items = (self.data[index] for index in range(len(self.data)))
        return {"random region": random_region([region_hits(item.regions, mention.boxes) for item in items for mention in item.mentions])}

    def panels(self, model: VisionLanguageModel, samples: int) -> ReportPanels:
        """The best region of each phrase of captions spread over the set, beside a true box."""
        chosen = spread(range(len(self.data)), samples)
        panels: list[BoxPanel] = []
        for items in self._batches(chosen):
            for item, found in zip(items, self._search(model, items), strict=True):
                panels += [self._panel(item, row) for row in found]
        return ReportPanels(boxes=panels)

    def _panel(self, item: PhraseItem, found: Found) -> BoxPanel:
        side = self.inputs.image_size
        best, true = (_pixels(box, side) for box in (item.regions[int(found.scores.argmax())], found.mention.boxes[0]))
        return BoxPanel(item.image, f"{found.mention.words} · {item.caption}", best, true, float(iou(best, true)))

    def _batches(self, indices: list[int]) -> Iterator[list[PhraseItem]]:
        size = self.settings.batch_size
        return ([self.data[index] for index in indices[start : start + size]] for start in range(0, len(indices), size))

    @torch.no_grad()
    def _search(self, model: VisionLanguageModel, items: Sequence[PhraseItem]) -> list[list[Found]]:
        assert isinstance(model, PixelMvp), "a recipe with evaluation.phrases has model.mvp"
        batch = self.texts.text_tensors([item.text for item in items], None, ())
        batch |= self.texts.tag_tensors([item.tags for item in items], None, ())
        batch |= region_tensors([item.regions for item in items], "region_boxes")
        batch["image"] = image_tensor([item.image for item in items])
        similar = phrase_similarities(model, {key: value.to(self.inputs.device) for key, value in batch.items()}, self.settings.layer).cpu()
        return [
            [Found(mention, _mean(row, mention, len(item.regions))) for mention in item.mentions]
            for row, item in zip(similar, items, strict=True)
        ]


def _mean(similarities: Tensor, mention: Mention, regions: int) -> NDArray[np.float32]:
    """[V] of [L, V']: the mean over a mention's positions, without padding."""
    return similarities[list(mention.positions), :regions].mean(dim=0).float().numpy()


def _pixels(box: NDArray[np.float32], side: int) -> list[float]:
    """Corners as shares to x, y, w, h in pixels of a square."""
    left, top, right, bottom = (float(value) * side for value in box)
    return [left, top, right - left, bottom - top]
