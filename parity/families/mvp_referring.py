"""MVP fine-tuned to choose among regions (MVPTR, arXiv 2201.12596): one scenario for each way to score them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from models.checkpoints.mvp import MvpAdapter
from models.tasks.mvp_referring import MvpReferrer, RegionScore, referring_loss
from parity.case import Case
from parity.families.mvp import case_config, pairs_batch
from parity.families.shared import outputs_of, with_weights
from parity.family import Built, Computed

OFFICIAL = ("mvp_pytorch", "oscar.modeling.modeling_vlbert.BiImageBertForRE")
SCORES: dict[str, RegionScore] = {"mod1": "cosine", "mod2": "product", "mod3": "linear"}
"""Scenarios, named for the official `loss_mod`."""


class MvpReferring:
    """The class that scores regions."""

    def covers(self, case: Case) -> bool:
        """See `Family`."""
        return (case.repo, case.official_class) == OFFICIAL

    def build(self, case: Case, dtype: torch.dtype) -> Built:
        """See `Family`. The official class keeps the contrastive projections and the pooler, of which no loss makes use."""
        config = case_config(case)
        model = MvpReferrer(config, "linear", layer=-1, heads=("itc",))
        model.pooler = nn.Linear(config.width, config.width)
        weights = case.weights | {"logit_scale": model.logit_scale.detach()}  # the official class has none
        return with_weights(model, replace(case, weights=weights), MvpAdapter().table(config), dtype)

    def run(self, built: Built, case: Case, scenario: str, dtype: torch.dtype) -> Computed | None:
        """See `Family`."""
        model = built.model
        if (score := SCORES.get(scenario)) is None:
            return None
        assert isinstance(model, MvpReferrer)
        model.score = score
        batch = to_batch(case.inputs[scenario], dtype)
        watched = {"txt": model.text_encoder, "vis": model.vision_encoder, "joint": model.joint_encoder}
        with outputs_of({"img": model.regions.linear, **watched}) as seen:
            scores = model.region_scores(batch)
        loss = _rounded_loss(scores, batch) if score == "product" else referring_loss(scores, batch, score, "exact")
        text, image, joint = (seen[name][0][-1] for name in watched)
        outputs = {"loss_total": loss, "logits": scores.sigmoid() if score == "product" else scores, "img_embedding": seen["img"][0]}
        outputs |= {"txt_embeds": text, "vis_embeds": image, "joint_embeds": joint, "pooled": model.pool(joint)}
        outputs |= {"sim_mat": model.text_features(text) @ model.image_features(image).T}
        if score == "linear":
            outputs["cls_logits"] = scores[:, :, None]
        return Computed(outputs, loss)


def to_batch(inputs: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    """The arguments of the official forward as a batch of ours (models/tasks/mvp_referring.py)."""
    return pairs_batch(inputs, dtype) | {"overlaps": inputs["labels"].to(dtype)}


def _rounded_loss(scores: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """The loss of products as the official code computes it in any precision: in float32, over a list of the regions."""
    mask = batch["region_mask"]
    listed = {"overlaps": batch["overlaps"][mask][None], "region_mask": mask[mask][None]}
    return referring_loss(scores[mask].float()[None], listed, "product", "exact")
