"""Objectives of parallel text (CCLM, arXiv 2206.00621, section 3): two texts of one meaning stand for image and text.

Shapes: R pairs, L and K tokens of the first and the second text, J of both in one row, M masked positions, H text width, E feature width.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from common.distributed import GradientMode
from common.errors import UserError
from models.context import VisionContext
from models.objectives.masked_lm import mlm_loss
from models.packing import Packing
from models.tasks.base import Batch
from models.tasks.contrast import DIRECT, Contrast
from models.tasks.passes import Scores, masked_lm, matching, run_requests
from models.vlm import FusionPass, VisionLanguageModel


class Texts(NamedTuple):
    """A list of texts to be encoded."""

    ids: Tensor
    """[R, L]"""
    mask: Tensor
    """[R, L] True for tokens."""
    packing: Packing | None = None
    """Which positions are tokens; None: all are computed."""


def parallel_losses(
    model: VisionLanguageModel, batch: Batch, objectives: Collection[str], mode: GradientMode, contrast: Contrast = DIRECT
) -> Scores:
    """All losses of one stream of parallel text.

    Args:
        model: encoders and heads; where texts are fused, vision and text width must be equal.
        batch: text_ids and text_mask [R, L], text_ids_2 and text_mask_2 [R, K], and which of their positions are tokens in text_bins and
            text_bins_2 where padding is not to be computed; sample_ids [R]; for ttm group [R] and negative_draws [R, 2]
            (the first chooses a wrong first text for each second one); for mlm text_ids_masked [R, L], masked_positions and mlm_labels
            [R, M]; for tlm pair_ids_masked and pair_mask [R, J], pair_masked_positions and pair_mlm_labels [R, M].
        objectives: names of the objectives to compute. ttc: contrast of the two texts. ttm: matching, the second text attends to the
            first. mlm: of the first text, which attends to the second, unmasked one. tlm: masked language modelling of both in one row.
        mode: see `GradientMode`.
        contrast: makes the contrastive loss.

    Returns:
        Scalar losses by name.

    Raises:
        UserError: the model cannot fuse texts with texts.
    """
    if contrast.stops_at_features and "ttc" not in objectives:
        return {}
    scores: Scores = {}
    mask, mask_2 = batch["text_mask"], batch["text_mask_2"]
    packing, packing_2 = _packing(batch, "text_bins", mask), _packing(batch, "text_bins_2", mask_2)
    texts = [Texts(batch["text_ids"], mask, packing), Texts(batch["text_ids_2"], mask_2, packing_2)]
    if "mlm" in objectives:
        texts.append(Texts(batch["text_ids_masked"], mask, packing))
    first, second, *masked = encode_together(model, texts)
    if "ttc" in objectives or "ttm" in objectives:
        features = model.text_features(first), model.text_features(second)
        if "ttc" in objectives:
            scores["ttc"] = contrast(*features, model.temperature, batch.get("sample_ids"), mode)
            if contrast.stops_at_features:
                return scores
        if "ttm" in objectives:
            pair = FusionPass(second, mask_2, None, packing=packing_2)
            scores |= run_requests(model, text_context(model, first, mask), [matching(model, pair, features, batch, mode, "ttm")])
    if "mlm" in objectives:
        hidden = FusionPass(masked[0], mask, None, packing=packing)
        scores |= run_requests(model, text_context(model, second, mask_2), [masked_lm(model, hidden, batch, mode)])
    if "tlm" in objectives:
        scores["tlm"] = _translation_lm_loss(model, batch, mode)
    return scores


def second_caption_losses(
    model: VisionLanguageModel,
    batch: Batch,
    image: Tensor,
    text: Tensor,
    itc: Tensor | None,
    mode: GradientMode,
    contrast: Contrast = DIRECT,
) -> Scores:
    """Contrast of a second caption of each image, in another language, with the image and with the first caption.

    Args:
        model: encoders and heads.
        batch: text_ids_2 and text_mask_2 [R, K]; sample_ids [R] where there are such.
        image: [R, E] features of the images.
        text: [R, E] features of the first captions.
        itc: loss of the first captions with the images; None where it is not wanted.
        mode: see `GradientMode`.
        contrast: makes the losses.

    Returns:
        itc, the mean over both captions, where wanted; and ttc between the captions.
    """
    mask = batch["text_mask_2"]
    states = model.encode_text(batch["text_ids_2"], mask, _packing(batch, "text_bins_2", mask))
    other, ids = model.text_features(states), batch.get("sample_ids")
    scores = {"ttc": contrast(text, other, model.temperature, ids, mode)}
    if itc is not None:
        scores["itc"] = (itc + contrast(image, other, model.temperature, ids, mode)) / 2
    return scores


def encode_together(model: VisionLanguageModel, texts: Sequence[Texts]) -> list[Tensor]:
    """Encode several lists of texts with one call of the text encoder, without their padding where all are packed; states [R, L, H] of
    each."""
    longest, pad = max(item.mask.shape[1] for item in texts), model.config.text.pad_token_id
    ids = torch.cat([F.pad(item.ids, (0, longest - item.ids.shape[1]), value=pad) for item in texts])
    masks = torch.cat([F.pad(item.mask, (0, longest - item.mask.shape[1]), value=False) for item in texts])
    packings = [item.packing for item in texts if item.packing is not None]
    packing = Packing.joined(packings, longest) if len(packings) == len(texts) else None
    states = model.encode_text(ids, masks, packing).split([len(item.ids) for item in texts])
    return [rows[:, : item.mask.shape[1]] for rows, item in zip(states, texts, strict=True)]


def _packing(batch: Batch, name: str, mask: Tensor) -> Packing | None:
    """Where the tokens of texts with a mask [R, L] are, where the batch tells."""
    return Packing(batch[name], *mask.shape) if name in batch else None


def text_context(model: VisionLanguageModel, states: Tensor, mask: Tensor) -> VisionContext:
    """Keys and values of texts [R, L, H] with mask [R, L] that other texts attend to as they would to images."""
    vision, text = model.config.vision.width, model.config.text.width
    if vision != text:
        raise UserError(
            f"model.vision.width is {vision} and model.text.width {text}: texts can stand in for images only where both are equal. "
            "Leave ttm and mlm out of the objectives of parallel text, or take encoders of one width."
        )
    return model.context(states, mask=mask)


def _translation_lm_loss(model: VisionLanguageModel, batch: Batch, mode: GradientMode) -> Tensor:
    """Masked language modelling of the two texts in one row, with no cross-attention (XLM's TLM, arXiv 1901.07291)."""
    mask = batch["pair_mask"]
    (fused,) = model.fuse(None, [FusionPass(model.encode_text(batch["pair_ids_masked"], mask), mask, None)])
    return mlm_loss(model.masked_lm_logits(fused, batch["pair_masked_positions"]), batch["pair_mlm_labels"], mode)
