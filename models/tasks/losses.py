"""The objectives of one stream on one batch: what is encoded once, fused in one call, and scored.

Shapes: B images, R texts, V = B or B + R views, N patches, L text tokens, M masked positions, D vision width, H text width.
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from common.distributed import GradientMode
from models.context import VisionContext
from models.fusion import FusionPass
from models.objectives.box import box_losses
from models.objectives.masked_image import code_loss, token_loss
from models.objectives.masked_lm import mlm_loss
from models.packing import Packing
from models.tasks.base import Batch
from models.tasks.contrast import DIRECT, Contrast
from models.tasks.parallel import second_caption_losses
from models.tasks.passes import Request, Scores, masked_lm, matching, run_requests
from models.vlm import VisionLanguageModel

CONTRASTIVE = {"itc", "ttc"}
"""Objectives that compare all pairs of a step."""
CONTRASTED = {*CONTRASTIVE, "itm"}
"""Objectives that need contrastive features."""
FUSED = {"itm", "mlm", "box"}
"""Objectives over the fusion encoder."""
CLEAN_TEXT = {*CONTRASTED, "box"}
"""Objectives that need the texts as they are."""
MASKED_TEXT = {"mlm", "text_mlm"}
"""Objectives that need the texts with hidden tokens."""


@dataclass(frozen=True)
class Variants:
    """How papers vary the objectives."""

    stop_text_gradient: frozenset[str] = frozenset()
    """Objectives over the fusion encoder (itm, mlm, box) whose gradient does not reach the text encoder. X-FM (arXiv 2301.05065, section
    3.3): all of them."""
    pooled_mim: bool = True
    """Whether masked image modelling also compares the global tokens."""


AS_USUAL = Variants()


class Encoded:
    """One batch after the encoders: everything that the objectives share. What none of them needs is left out."""

    tokens: Tensor
    """[B, 1+N, D] of the whole images."""
    global_tokens: Tensor
    """[R, D] what each text describes: its image or region."""
    mask: Tensor
    """[R, L] True for tokens."""
    packing: Packing | None = None
    """Which positions are tokens, where the batch tells."""
    image_view: Tensor | None = None
    """[R] the whole image of each text; None: text i has image i."""
    own_view: Tensor | None = None
    """[R] what each text describes."""
    text: Tensor
    """[R, L, H]"""
    masked_text: Tensor
    """[R, L, H]"""

    def __init__(
        self, model: VisionLanguageModel, batch: Batch, objectives: Collection[str], variants: Variants = AS_USUAL, fuses: bool = True
    ) -> None:
        self.batch = batch
        self.variants = variants
        self.vision: VisionContext | None = None  # stays None for texts without images, and where nothing is to be fused
        wanted = set(objectives)
        if "text_mask" in batch:
            self.mask = batch["text_mask"]
            self.packing = Packing(batch["text_bins"], *self.mask.shape) if "text_bins" in batch else None
            self.image_view = self.own_view = batch.get("image_index")
        if "image" in batch and (wanted & (CONTRASTED | FUSED) or ("mim" in wanted and model.visual_tokenizer is None)):
            self._encode_images(model, fuses and bool(wanted & FUSED))
        if wanted & (CLEAN_TEXT | MASKED_TEXT):
            self._encode_texts(model, wanted)

    def _encode_images(self, model: VisionLanguageModel, fused: bool) -> None:
        regions = None
        if "patch_mask" in self.batch:
            self.tokens, regions = model.encode_regions(self.batch["image"], self.batch["image_index"], self.batch["patch_mask"])
            self.global_tokens = regions.tokens
            self.own_view = len(self.tokens) + torch.arange(len(self.mask), device=self.mask.device)
        else:
            self.tokens = model.encode_images(self.batch["image"])
            self.global_tokens = self.tokens[:, 0]
            if self.image_view is not None:
                self.global_tokens = self.global_tokens[self.image_view]
        if fused:
            self.vision = model.context(self.tokens, regions)

    def _encode_texts(self, model: VisionLanguageModel, wanted: set[str]) -> None:
        clean, masked = bool(wanted & CLEAN_TEXT), bool(wanted & MASKED_TEXT)
        ids = [self.batch[name] for name, used in (("text_ids", clean), ("text_ids_masked", masked)) if used]
        packing = None if self.packing is None else self.packing.times(len(ids))
        # clean and masked in one call
        states = model.encode_text(torch.cat(ids), self.mask.repeat(len(ids), 1), packing).split(len(self.mask))
        if clean:
            self.text = states[0]
        if masked:
            self.masked_text = states[-1]

    def fusion_pass(self, objective: str) -> FusionPass:
        """The texts and what they describe, as an objective (itm, mlm, box) fuses them."""
        states = self.masked_text if objective == "mlm" else self.text
        if objective in self.variants.stop_text_gradient:
            states = states.detach()
        # for a box the whole image is in view: it must be found, not read off the region's mask
        whole = objective == "box"
        view = self.image_view if whole else self.own_view
        return FusionPass(states, self.mask, view, pooled=objective != "mlm", whole=whole, packing=self.packing)


def stream_losses(
    model: VisionLanguageModel,
    batch: Batch,
    objectives: Collection[str],
    mode: GradientMode,
    variants: Variants = AS_USUAL,
    contrast: Contrast = DIRECT,
) -> Scores:
    """All losses of one stream.

    Args:
        model: encoders and heads.
        batch: see dataset/streams/base.py for keys and shapes. Batches without images have text objectives only (mlm, which then skips
            cross-attention, and text_mlm), batches without texts only mim. For mim it carries patch_hidden [B, N], True for the patches
            to hide.
        objectives: names of the objectives to compute: itc, itm, mlm, box (which gives box_l1 and box_giou), ttc (of second captions),
            text_mlm, mim. Of texts in two languages: see `parallel_losses`.
        mode: see `GradientMode`.
        variants: see `Variants`.
        contrast: makes the contrastive losses.

    Returns:
        Scalar losses by name.
    """
    if contrast.stops_at_features and CONTRASTIVE.isdisjoint(objectives):
        return {}
    encoded = Encoded(model, batch, objectives, variants, fuses=not contrast.stops_at_features)
    scores: Scores = {}
    requests: list[Request] = []
    if CONTRASTED & set(objectives):
        image, text = model.image_features(encoded.global_tokens), model.text_features(encoded.text)
        if "itc" in objectives:
            scores["itc"] = contrast(image, text, model.temperature, batch.get("sample_ids"), mode)
        if "ttc" in objectives:
            scores |= second_caption_losses(model, batch, image, text, scores.get("itc"), mode, contrast)
        if contrast.stops_at_features:
            return scores
        if "itm" in objectives:
            requests.append(matching(model, encoded.fusion_pass("itm"), (image, text), batch, mode))
    if "mlm" in objectives:
        requests.append(masked_lm(model, encoded.fusion_pass("mlm"), batch, mode))
    if "box" in objectives:
        requests.append(_box(model, encoded, mode))
    scores |= run_requests(model, encoded.vision, requests)
    if "text_mlm" in objectives:
        logits = model.text_masked_lm_logits(encoded.masked_text, batch["masked_positions"])
        scores["text_mlm"] = mlm_loss(logits, batch["mlm_labels"], mode)
    if "mim" in objectives:
        scores["mim"] = _masked_image_loss(model, encoded, mode)
    return scores


def _box(model: VisionLanguageModel, encoded: Encoded, mode: GradientMode) -> Request:
    def score(states: list[Tensor]) -> Scores:
        l1, giou = box_losses(model.boxes(states[0]), encoded.batch["target_box"], ~encoded.batch["is_image"], mode)
        return {"box_l1": l1, "box_giou": giou}

    return [encoded.fusion_pass("box")], score


def _masked_image_loss(model: VisionLanguageModel, encoded: Encoded, mode: GradientMode) -> Tensor:
    images, hidden = encoded.batch["image"], encoded.batch["patch_hidden"]
    tokens = model.encode_masked_images(images, hidden)
    if model.visual_tokenizer is None:
        return token_loss(tokens, encoded.tokens, hidden, mode, encoded.variants.pooled_mim)
    return code_loss(model.code_logits(tokens), model.codes(images), hidden, mode)
