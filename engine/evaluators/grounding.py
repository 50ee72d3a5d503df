"""Boxes of held-out referring expressions."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset

from dataset.tasks.expressions import Expressions
from dataset.tasks.grounding import GroundingBatch, GroundingItem, GroundingSet, collate_grounding
from dataset.text import Punctuation
from engine.config.grounding import BoxMethod, Method
from engine.config.schema import GroundingEvaluation
from engine.evaluators.base import Inputs, right_and_wrong, share_of, spread
from engine.evaluators.grounding_methods import Found, answers_of, true_mask
from evaluation.grounding import CENTRE_BOX, grounding_baselines, grounding_metrics, iou, largest_candidate, place_box
from evaluation.heat import box_mask, mask_iou
from evaluation.report import AttentionPanel, BoxPanel, ReportPanels
from models.attention import recording
from models.fusion import FusionPass
from models.mvp.pixels import PixelEncoders
from models.vlm import VisionLanguageModel

MASK_IOU = "segmentation/mean_iou"


class GroundingEvaluator:
    """Answers every expression about its whole image, and counts the boxes that are right."""

    def __init__(
        self,
        source: Expressions,
        inputs: Inputs,
        settings: GroundingEvaluation,
        method: Method | None = None,
        train: Expressions | None = None,
        punctuation: Punctuation = "space",
    ) -> None:
        """Open the expressions; `train`, where given, tells the mean box to compare with. No method is that of the box head."""
        self.data = GroundingSet(source, inputs.image_size, punctuation=punctuation)
        self.train = GroundingSet(train, inputs.image_size) if train is not None else None
        self.inputs = inputs
        self.settings = settings
        self.answers = answers_of(method or BoxMethod(), inputs.tokenizer)
        self.overlaps: np.ndarray | None = None
        """[n] IoU of every answer with the true box, after evaluation."""

    def __call__(self, model: VisionLanguageModel) -> dict[str, float]:
        """Accuracy at IoU 0.5 in percent, by the plain and the inclusive-pixel rule, and mean IoU; each also under the name of a second
        way to answer, and of each split where there are several. With masks, also their mean IoU."""
        parts = [self._predict(model, batch) for batch in self.inputs.stoppable(self._loader(share_of(len(self.data))))]
        gathered = self.inputs.interruption.gather(Found.joined(parts) if parts else None)
        found = Found.joined([part for part in gathered if part is not None])
        true, _ = _boxes_and_sizes(self.data.records)
        self.overlaps = iou(found.boxes[""], true)
        return {f"{split}{name}": value for split, rows in self._splits().items() for name, value in _metrics(found, true, rows).items()}

    def baselines(self) -> dict[str, dict[str, float]]:
        """Guesses that do not read the text."""
        train = _boxes_and_sizes(self.train.records) if self.train is not None else (None, None)
        merged: dict[str, dict[str, float]] = {}
        for split, rows in self._splits().items():
            for guess, metrics in _baselines([self.data.records[row] for row in rows], train).items():
                merged.setdefault(guess, {}).update({f"{split}{name}": value for name, value in metrics.items()})
        return merged

    def panels(self, model: VisionLanguageModel, samples: int) -> ReportPanels:
        """Answers that are right and, as many of them, answers that are wrong; and where each word looks, unless in MVP's single stream."""
        boxes: list[BoxPanel] = []
        attention: list[AttentionPanel] = []
        for batch in self._loader(self._shown(samples)):
            if not isinstance(model, PixelEncoders):
                attention += self._attention_panels(model, batch)
            found = self._predict(model, batch)
            for index, (item, box) in enumerate(zip(batch["items"], found.boxes[""], strict=True)):
                image = _shown_image(item)
                scale = np.array([image.shape[1] / item["size"][0], image.shape[0] / item["size"][1]] * 2)  # original to shown pixels
                true = item["box"].numpy()
                heat = found.heat[index] if found.heat else None
                boxes.append(BoxPanel(image, item["text"], (box * scale).tolist(), (true * scale).tolist(), float(iou(box, true)), heat))
        return ReportPanels(boxes=boxes, attention=attention)

    def _shown(self, samples: int) -> list[int]:
        """Half right, half wrong, each spread over the set; where one kind runs out, more of the other."""
        if self.overlaps is None:
            return spread(range(len(self.data)), samples)
        right, wrong = right_and_wrong(self.overlaps >= 0.5, samples)
        return [*right, *wrong]

    def _splits(self) -> dict[str, Sequence[int]]:
        """Rows of all records under "", and of each split under its name with a slash, where there are several."""
        rows: dict[str, list[int]] = {}
        for row, record in enumerate(self.data.records):
            rows.setdefault(str(record.get("split")), []).append(row)
        return {"": range(len(self.data)), **({f"{split}/": found for split, found in rows.items()} if len(rows) > 1 else {})}

    def _loader(self, indices: Iterable[int]) -> DataLoader[GroundingBatch]:
        collate = partial(collate_grounding, tokenizer=self.inputs.tokenizer, max_tokens=self.inputs.max_tokens)
        return DataLoader(Subset(self.data, list(indices)), batch_size=self.settings.batch_size, collate_fn=collate)  # pyright: ignore[reportReturnType]

    def _predict(self, model: VisionLanguageModel, batch: GroundingBatch) -> Found:
        return self.answers(model, batch, self.inputs.device)

    def _attention_panels(self, model: VisionLanguageModel, batch: GroundingBatch) -> Iterator[AttentionPanel]:
        tokenizer = self.inputs.tokenizer
        rows = zip(batch["items"], batch["text_ids"], batch["text_mask"], self._attention(model, batch), strict=True)
        for item, ids, mask, maps in rows:
            tokens = tokenizer.convert_ids_to_tokens(ids[mask].tolist())
            yield AttentionPanel(_shown_image(item), *_words(list(tokens), maps, tokenizer.all_special_tokens))

    @torch.no_grad()
    def _attention(self, model: VisionLanguageModel, batch: GroundingBatch) -> np.ndarray:
        """[B, L, g, g] attention of every token over the patches: the last fusion layer, mean over its heads."""
        mask = batch["text_mask"].to(self.inputs.device)
        vision = model.context(model.encode_images(batch["image"].to(self.inputs.device)))
        text = model.encode_text(batch["text_ids"].to(self.inputs.device), mask)
        with recording(model.fusion.blocks()[-1].cross_attention) as recorded:
            model.fuse(vision, [FusionPass(text, mask, None)])
        maps = recorded[0].mean(dim=1)[:, :, 1:]  # without the global token
        side = round(maps.shape[-1] ** 0.5)
        return maps.unflatten(-1, (side, side)).float().cpu().numpy()


def _shown_image(item: GroundingItem) -> np.ndarray:
    return item["image"].permute(1, 2, 0).numpy()


def _metrics(found: Found, true: np.ndarray, rows: Sequence[int]) -> dict[str, float]:
    """Numbers of some rows."""
    numbers = {
        f"{name}/{key}" if name else key: value
        for name, boxes in found.boxes.items()
        for key, value in grounding_metrics(boxes[rows], true[rows]).items()
    }
    masks = found.mask_iou[rows]
    return numbers | ({MASK_IOU: float(np.nanmean(masks))} if np.isfinite(masks).any() else {})


def _baselines(records: Sequence[dict[str, Any]], train: tuple[np.ndarray | None, np.ndarray | None]) -> dict[str, dict[str, float]]:
    """Guesses about some records; a guess's box is also its mask."""
    boxes, sizes = _boxes_and_sizes(records)
    candidates = [record.get("candidates") for record in records]
    known = candidates if all(candidates) else None
    guesses = grounding_baselines(boxes, sizes, *train, known)  # pyright: ignore[reportArgumentType]
    drawn = {"centre box": place_box(CENTRE_BOX, sizes)}
    if known is not None:
        drawn["largest object"] = largest_candidate(known)  # pyright: ignore[reportArgumentType]
    masked = [(row, record) for row, record in enumerate(records) if record.get("segmentation") is not None]
    for guess, found in drawn.items() if masked else ():
        overlaps = [_box_against_mask(found[row], record) for row, record in masked]
        guesses[guess] = guesses[guess] | {MASK_IOU: float(np.mean(overlaps))}
    return guesses


def _box_against_mask(box: np.ndarray, record: dict[str, Any]) -> float:
    size = (record["width"], record["height"])
    true = true_mask(record["segmentation"], size, str(record["image"]))
    assert true is not None, "the record has one"
    return mask_iou(box_mask(box, size), true)


def _boxes_and_sizes(records: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    boxes = np.array([record["bbox"] for record in records], dtype=np.float64)
    return boxes, np.array([(record["width"], record["height"]) for record in records], dtype=np.float64)


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
