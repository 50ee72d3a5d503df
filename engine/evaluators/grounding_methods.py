"""How expressions are answered with boxes: by a head that predicts them, by where a match comes from, or by ranking candidates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from common.errors import BadRecord, UserError
from dataset.masks import Mask, decode_mask
from dataset.tasks.grounding import GroundingBatch, GroundingItem
from dataset.tasks.grounding_config import CandidateSettings
from dataset.tasks.regions import candidate_boxes, candidate_tensors, whole_image
from engine.config.grounding import BoxMethod, HeatMethod, Method
from evaluation.grounding import iou
from evaluation.heat import Heat, best_box, hot_box, hot_pixels, mask_iou, spread
from models.mvp.pixels import PixelEncoders
from models.tasks.grounding import predict_boxes
from models.tasks.heat import heat_maps
from models.tasks.region_grounding import best_regions
from models.vlm import VisionLanguageModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ITSELF = "heat_box"
"""Under which name the box is reported that the heat gives without a detector."""
BEST = "best_candidate"
"""Under which name the candidate nearest to the true box is reported: the most that any ranking can reach."""


@dataclass(frozen=True)
class Found:
    """Answers to B expressions."""

    boxes: dict[str, np.ndarray]
    """[B, 4] x, y, w, h in pixels of the original images by how they were found; the answer itself under ""."""
    mask_iou: np.ndarray
    """[B] IoU of the mask found with the true one; NaN where there is none."""
    heat: list[np.ndarray] = field(default_factory=list)
    """B maps [g, g], where there are any."""

    @classmethod
    def joined(cls, parts: list[Found]) -> Found:
        """Answers one after the other, without their maps."""
        names = [name for name in parts[0].boxes if all(name in part.boxes for part in parts)]
        boxes = {name: np.concatenate([part.boxes[name] for part in parts]) for name in names}
        return cls(boxes, np.concatenate([part.mask_iou for part in parts]))


class Answers(Protocol):
    """A way to answer expressions."""

    def __call__(self, model: VisionLanguageModel, batch: GroundingBatch, device: torch.device) -> Found:
        """Answers to a batch whose tensors are on the CPU."""
        ...


def answers_of(method: Method, tokenizer: PreTrainedTokenizerBase) -> Answers:
    """The way that a config's method answers."""
    match method:
        case BoxMethod():
            return PredictedBoxes()
        case HeatMethod():
            return HeatOfMatch(method)
        case _:
            return RankedCandidates(method.candidates, tokenizer)


class PredictedBoxes:
    """What the box head says, cut to the image."""

    def __call__(self, model: VisionLanguageModel, batch: GroundingBatch, device: torch.device) -> Found:
        """See `Answers`."""
        images, ids, mask = (batch[name].to(device) for name in ("image", "text_ids", "text_mask"))
        boxes = predict_boxes(model, images, ids, mask).cpu()
        centre, size = boxes[:, :2], boxes[:, 2:]
        corner = (centre - size / 2).clamp(min=0)
        end = (centre + size / 2).clamp(max=1)
        found = torch.cat([corner, end - corner], dim=1) * batch["size"].repeat(1, 2)
        return Found({"": found.numpy()}, np.full(len(found), np.nan))


class HeatOfMatch:
    """The candidate with the most heat for its size, or where there are none the box of the heat itself, which is also reported alone."""

    def __init__(self, method: HeatMethod) -> None:
        self.method = method

    def __call__(self, model: VisionLanguageModel, batch: GroundingBatch, device: torch.device) -> Found:
        """See `Answers`."""
        images, ids, mask = (batch[name].to(device) for name in ("image", "text_ids", "text_mask"))
        maps = list(heat_maps(model, images, ids, mask, self.method.layer).cpu().numpy())
        heats = [spread(heat, item["size"]) for heat, item in zip(maps, batch["items"], strict=True)]
        share = self.method.hot_share
        itself = np.stack([hot_box(heat, share) for heat in heats])
        chosen = [
            box if not item["candidates"] else best_box(heat, item["candidates"], self.method.area_power)
            for heat, item, box in zip(heats, batch["items"], itself, strict=True)
        ]
        boxes = {"": np.stack(chosen), ITSELF: itself}
        if all(item["candidates"] for item in batch["items"]):
            boxes[BEST] = np.stack([_nearest(item) for item in batch["items"]])
        overlaps = [_mask_overlap(heat, item, share) for heat, item in zip(heats, batch["items"], strict=True)]
        return Found(boxes, np.array(overlaps), maps)


class RankedCandidates:
    """The candidate that a model of MVP ranks first, cut to the image."""

    def __init__(self, settings: CandidateSettings, tokenizer: PreTrainedTokenizerBase) -> None:
        self.settings = settings
        self.tokenizer = tokenizer

    def __call__(self, model: VisionLanguageModel, batch: GroundingBatch, device: torch.device) -> Found:
        """See `Answers`."""
        assert isinstance(model, PixelEncoders), "method regions goes with model.mvp"
        items = batch["items"]
        boxes = [candidate_boxes(item["candidates"], item["size"])[: self.settings.max] for item in items]
        regions = [whole_image(found, item["size"]) for found, item in zip(boxes, items, strict=True)]
        inputs = {"image": batch["image"], "text_ids": batch["text_ids"], "text_mask": batch["text_mask"]}
        inputs |= candidate_tensors(regions, [item["tags"] for item in items], self.tokenizer, self.settings.max_tag_tokens)
        chosen = best_regions(model, {key: value.to(device) for key, value in inputs.items()}).tolist()
        answers = np.array([found[number] for found, number in zip(boxes, chosen, strict=True)])
        return Found({"": answers, BEST: np.stack([_nearest(item) for item in items])}, np.full(len(items), np.nan))


def _nearest(item: GroundingItem) -> np.ndarray:
    candidates = np.asarray(item["candidates"], dtype=np.float64)
    return candidates[int(np.argmax(iou(candidates, item["box"].numpy())))]


def _mask_overlap(heat: Heat, item: GroundingItem, share: float) -> float:
    true = true_mask(item["segmentation"], item["size"], item["place"])
    return float("nan") if true is None else mask_iou(hot_pixels(heat, share), true)


def true_mask(segmentation: object, size: tuple[int, int], place: str) -> Mask | None:
    """The mask of an annotation, None where there is none.

    Raises:
        UserError: it does not fit the image.
    """
    if segmentation is None:
        return None
    try:
        return decode_mask(segmentation, *size)
    except BadRecord as error:
        raise UserError(f"{place}: {error}.") from error
