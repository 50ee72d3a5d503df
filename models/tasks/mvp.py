"""MVP's objectives on one batch: both sides are encoded once, true and wrong pairs are fused in one call, and scored (section 3.3).

Every objective sees the same masked words and masked tags, as published.

Keys of a batch (R pairs, L text positions, T tag positions, V regions, F numbers of a region, M masked positions):

    text_ids, text_mask, phrase_mask    int64, bool, bool [R, L]: `[CLS] words phrases [SEP]`, some hidden; what is no padding; phrases
    text_types                          int64 [R, L], optional: token types, 0 without it
    masked_positions, mlm_labels        int64 [R, M]: hidden words; labels of padding are IGNORED
    masked_phrase_positions,            int64 [R, M]: hidden phrases, for phrases
    phrase_labels
    tag_ids, tag_mask                   int64, bool [R, T]: `[CLS] tags [SEP]`, some of them hidden
    tag_types                           int64 [R, T], optional: token types, 1 without it
    masked_tag_positions, tag_labels    int64 [R, M]: hidden tags
    regions, region_mask                float [R, V, F], bool [R, V]
    sample_ids, group                   int64 [R]: as in dataset/streams/base.py; negatives are of the same group and another sample
    answers                             int64 [R]: for qa; IGNORED where a row asks nothing
    side_draws                          float32 [R], uniform: the lower half of a group gets wrong images, the rest wrong texts
    negative_draws                      float32 [R, 2], uniform: wrong image of each text, wrong text of each image; for sampled negatives
    other_draws                         float32 [R], uniform: which other image phrases are compared with; for grounding "sample"
    grounding_draws                     float32 [R, L, 2], uniform: each phrase's choice among its best regions in the right and in the
                                        wrong image; without it the best is taken
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from common.distributed import GradientMode
from models.mvp.config import MvpLearning
from models.mvp.model import Mvp
from models.objectives.contrastive import itc_loss
from models.objectives.masked_lm import mlm_loss
from models.objectives.matching import hard_negatives, hardest_negatives, inseparable, itm_loss
from models.objectives.phrase_grounding import grounding_scores, phrase_grounding_loss
from models.tasks.base import Batch

Scores = dict[str, Tensor]
MVP_OBJECTIVES = ("concepts", "itc", "mlm", "itm", "phrase_grounding", "qa")
"""Those of the published code. Beside them there is `phrases`: hidden phrases are predicted by the text encoder."""


@dataclass(frozen=True)
class WrongPairs:
    """One wrong pair for each row: its text with a wrong image, or its image with a wrong text."""

    image_of_text: Tensor
    """[R] a wrong image for each text."""
    text_of_image: Tensor
    """[R] a wrong text for each image."""
    text: Tensor
    """[R] row of the text of the wrong pair."""
    image: Tensor
    """[R] row of its image."""
    valid: Tensor
    """[R] False where there is no wrong partner."""


@dataclass(frozen=True)
class MvpStates:
    """One batch after the encoders: everything that the objectives share."""

    text: Tensor
    """[R, L, H] of the text encoder."""
    tags: Tensor
    """[R, T, H] of the visual encoder."""
    regions: Tensor
    """[R, V, H] of the visual encoder."""
    text_features: Tensor | None = None
    """[R, H]; None where no objective compares texts with images."""
    image_features: Tensor | None = None
    positive: list[Tensor] | None = None
    """[R, L+V, H] after each layer of the joint encoder; None where no objective needs it."""
    wrong: WrongPairs | None = None
    negative: list[Tensor] | None = None
    """As `positive`, of the wrong pairs."""


def mvp_losses(model: Mvp, batch: Batch, objectives: Collection[str], learning: MvpLearning, mode: GradientMode) -> Scores:
    """All losses of one batch.

    Args:
        model: encoders and heads; `itm` and hard `phrase_grounding` need the contrastive head.
        batch: see above.
        objectives: names out of MVP_OBJECTIVES, and phrases.
        learning: choice of negatives, margin.
        mode: see `GradientMode`.

    Returns:
        Scalar losses by name; 0 with a gradient path where a batch has nothing for an objective.
    """
    return mvp_scores(model, batch, mvp_states(model, batch, objectives, learning), objectives, learning, mode)


def mvp_states(model: Mvp, batch: Batch, objectives: Collection[str], learning: MvpLearning) -> MvpStates:
    """Encode texts and images once, and fuse what the objectives need in one call of the joint encoder."""
    text = model.encode_text(batch["text_ids"], batch["text_mask"], batch.get("text_types"))
    tags, regions = model.encode_image(batch["tag_ids"], batch["tag_mask"], batch["regions"], batch["region_mask"], batch.get("tag_types"))
    pairs = "itm" in objectives or ("phrase_grounding" in objectives and learning.grounding == "hard")
    text_features = image_features = wrong = positive = negative = None
    if pairs or "itc" in objectives:
        text_features, image_features = model.text_features(text), model.image_features(tags)
        if pairs:
            wrong = _wrong_pairs(text_features, image_features, model.temperature, batch, learning)
    if pairs or not {"mlm", "phrase_grounding", "qa"}.isdisjoint(objectives):
        positive, negative = _fuse(model, batch, text, regions, wrong)
    return MvpStates(text, tags, regions, text_features, image_features, positive, wrong, negative)


def mvp_scores(
    model: Mvp, batch: Batch, states: MvpStates, objectives: Collection[str], learning: MvpLearning, mode: GradientMode
) -> Scores:
    """The losses of encoded batches, see `mvp_losses`."""
    scores: Scores = {}
    if "concepts" in objectives:
        scores["concepts"] = mlm_loss(model.concept_logits(states.tags, batch["masked_tag_positions"]), batch["tag_labels"], mode)
    if "phrases" in objectives:
        scores["phrases"] = mlm_loss(model.phrase_logits(states.text, batch["masked_phrase_positions"]), batch["phrase_labels"], mode)
    if "itc" in objectives:
        assert states.image_features is not None and states.text_features is not None
        scores["itc"] = itc_loss(states.image_features, states.text_features, model.temperature, batch["sample_ids"], mode)
    if states.positive is None:
        return scores
    if "mlm" in objectives:
        scores["mlm"] = mlm_loss(model.masked_lm_logits(states.positive[-1], batch["masked_positions"]), batch["mlm_labels"], mode)
    if "phrase_grounding" in objectives:
        scores["phrase_grounding"] = _phrase_grounding(batch, states, learning, mode)
    if "itm" in objectives or "qa" in objectives:
        pooled = model.pool(states.positive[-1])
        if "itm" in objectives:
            scores["itm"] = _matching(model, pooled, states, mode)
        if "qa" in objectives:  # classification is prediction of one word among the answers
            scores["qa"] = mlm_loss(model.answer_logits(pooled)[:, None], batch["answers"][:, None], mode)
    return scores


@torch.no_grad()
def _wrong_pairs(text: Tensor, image: Tensor, temperature: Tensor, batch: Batch, learning: MvpLearning) -> WrongPairs:
    """Half of the texts get a wrong image, the images of the other half a wrong text."""
    same = inseparable(batch["sample_ids"], batch["group"])
    with torch.autocast(text.device.type, enabled=False):
        similarity = text.to(temperature.dtype) @ image.to(temperature.dtype).T / temperature  # [R, R] text rows, image columns
    if learning.negatives == "hardest":
        image_of_text, has_image = hardest_negatives(similarity, same)
        text_of_image, has_text = hardest_negatives(similarity.T, same)
    else:
        draws = batch["negative_draws"]
        image_of_text, has_image = hard_negatives(similarity, same, draws[:, 0])
        text_of_image, has_text = hard_negatives(similarity.T, same, draws[:, 1])
    wrong_image = _lower_half(batch["side_draws"], batch["group"])
    rows = torch.arange(len(text), device=text.device)
    return WrongPairs(
        image_of_text,
        text_of_image,
        torch.where(wrong_image, rows, text_of_image),
        torch.where(wrong_image, image_of_text, rows),
        torch.where(wrong_image, has_image, has_text),
    )


def _lower_half(draws: Tensor, group: Tensor) -> Tensor:
    """[R] True for the half of each group with the lowest draws, rounded down: a random half of exactly that size."""
    together = group[:, None] == group[None]
    rank = (together & (draws[None] < draws[:, None])).sum(dim=1)
    return rank < together.sum(dim=1) // 2


def _fuse(model: Mvp, batch: Batch, text: Tensor, regions: Tensor, wrong: WrongPairs | None) -> tuple[list[Tensor], list[Tensor] | None]:
    """True pairs and, where there are any, wrong ones through the joint encoder as one batch."""
    sides = (text, batch["text_mask"]), (regions, batch["region_mask"])
    if wrong is None:
        return model.fuse(*sides[0], *sides[1]), None
    rows = [torch.cat([values, values[index]]) for side, index in zip(sides, (wrong.text, wrong.image), strict=True) for values in side]
    layers = [layer.split(len(text)) for layer in model.fuse(*rows)]
    return [positive for positive, _ in layers], [negative for _, negative in layers]


def _matching(model: Mvp, pooled: Tensor, states: MvpStates, mode: GradientMode) -> Tensor:
    assert states.wrong is not None and states.negative is not None
    valid = states.wrong.valid
    true = torch.ones_like(valid)
    logits = model.match_logits(torch.cat([pooled, model.pool(states.negative[-1])]))
    return itm_loss(logits, torch.cat([true, ~true]), torch.cat([true, valid]), mode)


def _phrase_grounding(batch: Batch, states: MvpStates, learning: MvpLearning, mode: GradientMode) -> Tensor:
    assert states.positive is not None
    layer = learning.grounding_layer
    phrase_mask, region_mask, draws = batch["phrase_mask"], batch["region_mask"], batch.get("grounding_draws")
    right, wrong_draws = (None, None) if draws is None else draws.unbind(dim=2)
    length = phrase_mask.shape[1]
    phrases, regions = states.positive[layer][:, :length], states.positive[layer][:, length:]
    positive = grounding_scores(phrases, phrase_mask, regions, region_mask, right, learning.candidates)
    valid = phrase_mask.any(dim=1)
    if learning.grounding == "sample":
        same = inseparable(batch["sample_ids"], batch["group"])
        other, has_other = hard_negatives(torch.zeros_like(same, dtype=torch.float32), same, batch["other_draws"])  # all alike
        negative = grounding_scores(phrases, phrase_mask, regions[other], region_mask[other], wrong_draws, learning.candidates)
        return phrase_grounding_loss(positive, negative, valid & has_other, learning.margin, mode)
    assert states.wrong is not None and states.negative is not None
    wrong_phrases, wrong_mask = states.negative[layer][:, :length], phrase_mask[states.wrong.text]
    wrong_regions, wrong_region_mask = states.negative[layer][:, length:], region_mask[states.wrong.image]
    negative = grounding_scores(wrong_phrases, wrong_mask, wrong_regions, wrong_region_mask, wrong_draws, learning.candidates)
    valid = valid & wrong_mask.any(dim=1) & states.wrong.valid
    return phrase_grounding_loss(positive, negative, valid, learning.margin, mode)
