"""What objectives ask of the fusion encoder: passes of text rows over shared keys and values, and what their states are scored as.

Shapes: R texts with one view each, V views (of images, regions or other texts), L text tokens, E feature width.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from common.distributed import GradientMode
from models.context import VisionContext
from models.fusion import FusionPass
from models.objectives.masked_lm import mlm_loss
from models.objectives.matching import hard_negatives, hard_negatives_one_by_one, inseparable, itm_loss
from models.packing import Packing
from models.tasks.base import Batch
from models.vlm import VisionLanguageModel

Scores = dict[str, Tensor]
Request = tuple[list[FusionPass], Callable[[list[Tensor]], Scores]]
"""Fusion passes that an objective wants, and what it makes of their states."""


def run_requests(model: VisionLanguageModel, context: VisionContext | None, requests: list[Request]) -> Scores:
    """Serve all requests over one context with one call of the fusion encoder."""
    states = model.fuse(context, [item for passes, _ in requests for item in passes]) if requests else []
    scores: Scores = {}
    for passes, score in requests:
        scores |= score(states[: len(passes)])
        states = states[len(passes) :]
    return scores


@torch.no_grad()
def draw_negatives(
    view: Tensor, text: Tensor, temperature: Tensor, batch: Batch, batched: bool = True
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each text a wrong view and for each view a wrong text, within the groups of this rank's batch.

    Args:
        view: [R, E] features of what the texts attend to, row i the partner of text i.
        text: [R, E] features.
        temperature: scalar that divides the similarities.
        batch: with sample_ids [R], group [R] and negative_draws [R, 2].
        batched: False draws row by row.

    Returns:
        For each text the row [R] of the drawn view and whether there is one [R]; for each view the same of the drawn text.
    """
    with torch.autocast(view.device.type, enabled=False):
        similarity = view.float() @ text.float().T / temperature.float()  # [R, R] rows are views, columns texts
    same, draws = inseparable(batch["sample_ids"], batch["group"]), batch["negative_draws"]
    draw = hard_negatives if batched else hard_negatives_one_by_one
    return *draw(similarity.T, same, draws[:, 0]), *draw(similarity, same, draws[:, 1])


def matching(
    model: VisionLanguageModel, pair: FusionPass, features: tuple[Tensor, Tensor], batch: Batch, mode: GradientMode, name: str = "itm"
) -> Request:
    """Matching of true pairs against hard negatives of both kinds (X-VLM section 3.2; of texts with texts in CCLM section 3).

    Args:
        model: encoders and heads.
        pair: every text with the view that it belongs to.
        features: [R, E] of the views and [R, E] of the texts, by which negatives are chosen.
        batch: see `draw_negatives`.
        mode: see `GradientMode`.
        name: of the loss.
    """
    view_of_text, has_view, text_of_view, has_text = draw_negatives(
        *features, model.temperature, batch, model.config.savings.batched_negatives
    )
    pair = pair._replace(pooled=True)
    text, mask = pair.text.index_select(0, text_of_view), pair.mask[text_of_view]
    passes = [
        pair,
        pair._replace(view=view_of_text if pair.view is None else pair.view[view_of_text]),  # a region's mask travels with its view
        pair._replace(text=text, mask=mask, packing=packing_of_drawn(pair.packing, mask)),
    ]
    positive = torch.ones_like(has_view)

    def score(states: list[Tensor]) -> Scores:
        logits = torch.cat([model.match_logits(item) for item in states])
        matched = torch.cat([positive, ~positive, ~positive])
        return {name: itm_loss(logits, matched, torch.cat([positive, has_view, has_text]), mode)}

    return passes, score


def packing_of_drawn(packing: Packing | None, mask: Tensor) -> Packing | None:
    """Where the tokens of drawn texts [R, L] are, if those of all texts are known.

    Only the device knows which texts it drew. To ask it would stop the host, so that on a GPU their padding is computed along.
    """
    return Packing.of(mask) if packing is not None and mask.device.type == "cpu" else None


def masked_lm(model: VisionLanguageModel, masked: FusionPass, batch: Batch, mode: GradientMode) -> Request:
    """Masked language modelling of texts with their views in sight; batch with masked_positions and mlm_labels [R, M]."""

    def score(states: list[Tensor]) -> Scores:
        logits = model.masked_lm_logits(states[0], batch["masked_positions"])
        return {"mlm": mlm_loss(logits, batch["mlm_labels"], mode)}

    return [masked], score
