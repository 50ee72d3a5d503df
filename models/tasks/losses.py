"""The objectives of one stream on one batch: what is encoded once, fused in one call, and scored.

Shapes: B images, R texts, V = B or B + R views, L text tokens, M masked positions.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from common.distributed import GradientMode
from models.fusion import VisionContext
from models.objectives.box import box_losses
from models.objectives.contrastive import itc_loss
from models.objectives.masked_lm import mlm_loss
from models.objectives.matching import hard_negatives, itm_loss
from models.tasks.base import Batch
from models.vlm import FusionPass, VisionLanguageModel

Scores = dict[str, Tensor]
Request = tuple[list[FusionPass], Callable[[list[Tensor]], Scores]]
"""Fusion passes that an objective wants, and what it makes of their states."""


class Encoded:
    """One batch after the encoders: everything that the objectives share."""

    def __init__(self, model: VisionLanguageModel, batch: Batch, masked_text: bool) -> None:
        self.batch = batch
        self.mask = batch["text_mask"]
        rows = torch.arange(len(self.mask), device=self.mask.device)
        self.image_view = batch.get("image_index", rows)  # [R] the whole image of each text
        if "patch_mask" in batch:
            tokens, regions = model.encode_regions(batch["image"], self.image_view, batch["patch_mask"])  # [B, 1+N, D]
            self.global_tokens, self.own_view = regions.tokens, len(tokens) + rows  # [R, D], [R] the region of each text
        else:
            tokens, regions = model.encode_images(batch["image"]), None
            self.global_tokens, self.own_view = tokens[:, 0], self.image_view
            if "image_index" in batch:
                self.global_tokens = self.global_tokens[self.image_view]
        self.vision: VisionContext = model.context(tokens, regions)
        ids, masks = [batch["text_ids"]], [self.mask]
        if masked_text:  # clean and masked texts share one call
            ids, masks = [*ids, batch["text_ids_masked"]], [*masks, self.mask]
        states = model.encode_text(torch.cat(ids), torch.cat(masks)).split(len(rows))
        self.text, self.masked_text = states[0], states[-1]  # [R, L, H]


def stream_losses(model: VisionLanguageModel, batch: Batch, objectives: Mapping[str, float], mode: GradientMode) -> Scores:
    """All losses of one stream.

    Args:
        model: encoders and heads.
        batch: see dataset/streams/base.py for keys and shapes.
        objectives: names of the objectives to compute: itc, itm, mlm, box (which gives box_l1 and box_giou).
        mode: see `GradientMode`.

    Returns:
        Scalar losses by name.
    """
    encoded = Encoded(model, batch, masked_text="mlm" in objectives)
    scores: Scores = {}
    requests: list[Request] = []
    if "itc" in objectives or "itm" in objectives:
        image, text = model.image_features(encoded.global_tokens), model.text_features(encoded.text)
        if "itc" in objectives:
            scores["itc"] = itc_loss(image, text, model.temperature, batch.get("sample_ids"), mode)
        if "itm" in objectives:
            requests.append(_matching(model, encoded, *_draw_negatives(image, text, model.temperature, batch), mode))
    if "mlm" in objectives:
        requests.append(_masked_lm(model, encoded, mode))
    if "box" in objectives:
        requests.append(_box(model, encoded, mode))
    states = model.fuse(encoded.vision, [item for passes, _ in requests for item in passes]) if requests else []
    for passes, score in requests:
        scores |= score(states[: len(passes)])
        states = states[len(passes) :]
    return scores


@torch.no_grad()
def _draw_negatives(image: Tensor, text: Tensor, temperature: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each text a wrong image and for each image a wrong text, within the groups of this rank's batch."""
    with torch.autocast(image.device.type, enabled=False):
        similarity = image.float() @ text.float().T / temperature.float()  # [R, R] image rows, text columns
    ids, group, draws = batch["sample_ids"], batch["group"], batch["negative_draws"]
    same = (ids[:, None] == ids[None]) | (group[:, None] != group[None])
    image_of_text, has_image = hard_negatives(similarity.T, same, draws[:, 0])
    text_of_image, has_text = hard_negatives(similarity, same, draws[:, 1])
    return image_of_text, has_image, text_of_image, has_text


def _matching(
    model: VisionLanguageModel,
    encoded: Encoded,
    image_of_text: Tensor,
    has_image: Tensor,
    text_of_image: Tensor,
    has_text: Tensor,
    mode: GradientMode,
) -> Request:
    text, mask, view = encoded.text, encoded.mask, encoded.own_view
    passes = [
        FusionPass(text, mask, view),
        FusionPass(text, mask, view[image_of_text]),  # a region's mask travels with its view
        FusionPass(text[text_of_image], mask[text_of_image], view),
    ]
    positive = torch.ones_like(has_image)

    def score(states: list[Tensor]) -> Scores:
        logits = torch.cat([model.match_logits(item) for item in states])
        matched = torch.cat([positive, ~positive, ~positive])
        return {"itm": itm_loss(logits, matched, torch.cat([positive, has_image, has_text]), mode)}

    return passes, score


def _masked_lm(model: VisionLanguageModel, encoded: Encoded, mode: GradientMode) -> Request:
    def score(states: list[Tensor]) -> Scores:
        logits = model.masked_lm_logits(states[0], encoded.batch["masked_positions"])
        return {"mlm": mlm_loss(logits, encoded.batch["mlm_labels"], mode)}

    return [FusionPass(encoded.masked_text, encoded.mask, encoded.own_view)], score


def _box(model: VisionLanguageModel, encoded: Encoded, mode: GradientMode) -> Request:
    def score(states: list[Tensor]) -> Scores:
        l1, giou = box_losses(model.boxes(states[0]), encoded.batch["target_box"], ~encoded.batch["is_image"], mode)
        return {"box_l1": l1, "box_giou": giou}

    # the whole image is in view: the box must be found, not read off the region's mask
    return [FusionPass(encoded.text, encoded.mask, encoded.image_view)], score
