"""Boxes of held-out referring expressions."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from dataset.tasks.grounding import GroundingBatch, GroundingSet, collate_grounding
from engine.config.schema import GroundingEvaluation
from engine.evaluators.base import Inputs, share_of
from evaluation.grounding import grounding_baselines, grounding_metrics, iou
from evaluation.report import AttentionPanel, BoxPanel, ReportPanels
from models.tasks.grounding import predict_boxes
from models.vlm import VisionLanguageModel


class GroundingEvaluator:
    """Predicts the box of every expression in its whole image."""

    def __init__(self, file: str, image_root: str, inputs: Inputs, settings: GroundingEvaluation, train_file: str | None = None) -> None:
        """Open the expressions of a JSON file, image paths relative to `image_root`; `train_file` gives the mean box to compare with."""
        self.data = GroundingSet(Path(file), Path(image_root), inputs.image_size)
        self.train = GroundingSet(Path(train_file), Path(image_root), inputs.image_size) if train_file is not None else None
        self.inputs = inputs
        self.settings = settings

    def __call__(self, model: VisionLanguageModel) -> dict[str, float]:
        """Accuracy at IoU 0.5 in percent, by the plain and the inclusive-pixel rule, and mean IoU."""
        predicted: list[Tensor] = []
        true: list[Tensor] = []
        for batch in self.inputs.stoppable(self._loader(list(share_of(len(self.data))))):
            predicted.append(self._predict(model, batch))
            true.append(batch["box"])
        rows = self.inputs.interruption.gather((torch.cat(predicted).numpy(), torch.cat(true).numpy()) if predicted else None)
        found = [row for row in rows if row is not None]
        return grounding_metrics(np.concatenate([row[0] for row in found]), np.concatenate([row[1] for row in found]))

    def baselines(self) -> dict[str, dict[str, float]]:
        """Guesses that do not read the text."""
        boxes, sizes = _boxes_and_sizes(self.data)
        candidates = [record.get("candidates") for record in self.data.records]
        known = candidates if all(candidates) else None
        train_boxes, train_sizes = _boxes_and_sizes(self.train) if self.train is not None else (None, None)
        return grounding_baselines(boxes, sizes, train_boxes, train_sizes, known)  # pyright: ignore[reportArgumentType]

    def panels(self, model: VisionLanguageModel, samples: int) -> ReportPanels:
        """Predicted against true boxes, and where each word looks, for expressions spread over the set."""
        chosen = np.linspace(0, len(self.data) - 1, min(samples, len(self.data)), dtype=int).tolist()
        boxes: list[BoxPanel] = []
        attention: list[AttentionPanel] = []
        for batch in self._loader(chosen):
            maps = self._attention(model, batch)
            for index, (item, found) in enumerate(zip(batch["items"], self._predict(model, batch).numpy(), strict=True)):
                image = item["image"].permute(1, 2, 0).numpy()
                scale = np.array([image.shape[1] / item["size"][0], image.shape[0] / item["size"][1]] * 2)  # original to shown pixels
                true = item["box"].numpy()
                boxes.append(BoxPanel(image, item["text"], (found * scale).tolist(), (true * scale).tolist(), float(iou(found, true))))
                tokens = self.inputs.tokenizer.convert_ids_to_tokens(batch["text_ids"][index][batch["text_mask"][index]].tolist())
                special = self.inputs.tokenizer.all_special_tokens
                attention.append(AttentionPanel(image, *_words(list(tokens), maps[index], special)))
        return ReportPanels(boxes=boxes, attention=attention)

    def _loader(self, indices: list[int]) -> DataLoader[GroundingBatch]:
        collate = partial(collate_grounding, tokenizer=self.inputs.tokenizer, max_tokens=self.inputs.max_tokens)
        return DataLoader(Subset(self.data, indices), batch_size=self.settings.batch_size, collate_fn=collate)  # pyright: ignore[reportReturnType]

    def _predict(self, model: VisionLanguageModel, batch: GroundingBatch) -> Tensor:
        """[B, 4] x, y, w, h in pixels of the original images, on the CPU."""
        inputs = (
            batch["image"].to(self.inputs.device),
            batch["text_ids"].to(self.inputs.device),
            batch["text_mask"].to(self.inputs.device),
        )
        boxes = predict_boxes(model, *inputs).cpu()
        centre, size = boxes[:, :2], boxes[:, 2:]
        corner = (centre - size / 2).clamp(min=0)
        end = (centre + size / 2).clamp(max=1)
        return torch.cat([corner, end - corner], dim=1) * batch["size"].repeat(1, 2)

    @torch.no_grad()
    def _attention(self, model: VisionLanguageModel, batch: GroundingBatch) -> np.ndarray:
        """[B, L, g, g] attention of every token over the patches: the last fusion layer, mean over its heads."""
        mask = batch["text_mask"].to(self.inputs.device)
        vision = model.context(model.encode_images(batch["image"].to(self.inputs.device)))
        text = model.encode_text(batch["text_ids"].to(self.inputs.device), mask)
        maps = model.fusion.attention_maps(text, mask, vision, torch.arange(len(text), device=self.inputs.device), layer=-1).mean(dim=1)[
            :, :, 1:
        ]
        side = round(maps.shape[-1] ** 0.5)
        return maps.unflatten(-1, (side, side)).float().cpu().numpy()


def _boxes_and_sizes(data: GroundingSet) -> tuple[np.ndarray, np.ndarray]:
    boxes = np.array([record["bbox"] for record in data.records], dtype=np.float64)
    return boxes, np.array([(record["width"], record["height"]) for record in data.records], dtype=np.float64)


def _words(tokens: list[str], maps: np.ndarray, special: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Join word pieces; [CLS] and, where there is one, [SEP] are left out.

    Maps [L, g, g] of tokens become words and maps [W, g, g], summed over pieces.
    """
    words: list[str] = []
    joined: list[np.ndarray] = []
    for token, picture in list(zip(tokens, maps, strict=False))[1 : -1 if tokens[-1] in special else None]:
        if token.startswith("##") and words:
            words[-1] += token.removeprefix("##")
            joined[-1] = joined[-1] + picture
        else:
            words.append(token)
            joined.append(picture)
    return words, np.stack(joined)
