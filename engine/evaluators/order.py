"""Whether a model knows the order of events: for each clip, its caption against one that tells the same frames in another order.

The held-out clips come in pairs, a clip and the same frames backwards, with the captions changed over. A model that does not see the order
scores both clips alike and is right about one of the two.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import BadRecord, UserError
from dataset.clips import ClipReader, squash_clip
from dataset.streams.base import image_tensor
from dataset.tasks.files import read_json_list
from dataset.text import pre_caption
from dataset.tokenizers import encode_texts
from dataset.transforms import MAX_PIXELS
from engine.config.videos import OrderProbe
from engine.evaluators.base import Inputs, share_of
from evaluation.report import ReportPanels
from models.candidates import to_device
from models.fusion import FusionPass
from models.tasks.ranking import precise
from models.vlm import VisionLanguageModel

BY_MATCHING, BY_FEATURES = "acc", "itc_acc"


class OrderEvaluator:
    """Chooses between two captions of each clip, by the matching head and by features.

    Raises:
        UserError: the file is missing or malformed.
    """

    def __init__(self, settings: OrderProbe, inputs: Inputs, frames: int) -> None:
        self.settings, self.inputs = settings, inputs
        self.reader = ClipReader(frames, MAX_PIXELS)
        self.records = read_json_list(Path(settings.file), ("image", "caption", "wrong", "kind"))

    def __call__(self, model: VisionLanguageModel) -> dict[str, float]:
        """Percent of the clips whose own caption scores higher, equal scores counting half: of all, and of each kind."""
        size, count = self.settings.batch_size, len(self.records)
        scored: list[tuple[str, float, float]] = []
        for number in self.inputs.stoppable(share_of(-(-count // size))):
            scored += self._scored(model, self.records[number * size : (number + 1) * size])
        rights: dict[str, list[float]] = defaultdict(list)
        for kind, matched, similar in (row for rows in self.inputs.interruption.gather(scored) for row in rows):
            rights[BY_MATCHING].append(matched)
            rights[BY_FEATURES].append(similar)
            rights[f"{kind}_{BY_MATCHING}"].append(matched)
        return {name: 100 * sum(values) / len(values) for name, values in rights.items()}

    def baselines(self) -> dict[str, dict[str, float]]:
        """A coin."""
        names = [BY_MATCHING, BY_FEATURES, *(f"{kind}_{BY_MATCHING}" for kind in dict.fromkeys(record["kind"] for record in self.records))]
        return {"chance": dict.fromkeys(names, 50.0)}

    def panels(self, model: VisionLanguageModel, samples: int) -> ReportPanels:
        """None."""
        return ReportPanels()

    @torch.no_grad()
    def _scored(self, model: VisionLanguageModel, records: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
        """(kind, rightness by matching, rightness by features) of some clips; rightness is 1, 0, or 0.5 where scores are equal."""
        device, inputs = self.inputs.device, self.inputs
        clips = image_tensor([self._clip(record) for record in records])
        tokens = model.encode_images(to_device(clips, device))  # [B, P, D]
        context, features = model.context(tokens), model.image_features(tokens[:, 0])
        scores = []
        for key in ("caption", "wrong"):
            texts = [pre_caption(record[key], inputs.max_tokens) for record in records]
            ids, mask = (to_device(part, device) for part in encode_texts(inputs.tokenizer, texts, inputs.max_tokens))
            states = model.encode_text(ids, mask)
            fused = model.fuse(context, [FusionPass(states, mask, None, pooled=True)])[0]
            similar = (features * model.text_features(states)).sum(dim=1)  # [B]
            scores.append(torch.stack([precise(model.match_logits(fused)[:, 1]), precise(similar)], dim=1).cpu())  # [B, 2]
        return [(record["kind"], *values) for record, values in zip(records, _rightness(*scores).tolist(), strict=True)]

    def _clip(self, record: dict[str, Any]) -> Any:
        try:
            return squash_clip(self.reader.file(Path(self.settings.image_root) / record["image"], None), self.inputs.image_size)
        except BadRecord as error:
            raise UserError(f"{self.settings.file}: {error}.") from error


def _rightness(right: Tensor, wrong: Tensor) -> Tensor:
    """1 where the first is greater, 0.5 where both are equal, else 0."""
    return ((right > wrong).float() + (right >= wrong).float()) / 2
