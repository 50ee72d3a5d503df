"""MVP fine-tuned on VQA v2 (MVPTR, arXiv 2201.12596)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from models.checkpoints.mvp import MvpAdapter
from models.mvp.model import Mvp
from models.tasks.mvp_vqa import vqa_logits, vqa_loss, vqa_states
from parity.case import Case
from parity.families.mvp import case_config, pairs_batch
from parity.families.shared import outputs_of, with_weights
from parity.family import Built, Computed

OFFICIAL = ("mvp_pytorch", "oscar.modeling.modeling_vlbert.BiImageBertForVQA")


class MvpAnswering:
    """The class whose head chooses among answers."""

    def covers(self, case: Case) -> bool:
        """See `Family`."""
        return (case.repo, case.official_class) == OFFICIAL and case.dims.get("loss_type") == "bce"

    def build(self, case: Case, dtype: torch.dtype) -> Built:
        """See `Family`. The official class keeps the contrastive projections and the pooler, of which no loss makes use."""
        config = case_config(case)
        model = Mvp(config, ("itc", "vqa"))
        model.pooler = nn.Linear(config.width, config.width)
        weights = case.weights | {"logit_scale": model.logit_scale.detach()}  # the official class has none
        return with_weights(model, replace(case, weights=weights), MvpAdapter().table(config), dtype)

    def run(self, built: Built, case: Case, scenario: str, dtype: torch.dtype) -> Computed | None:
        """See `Family`."""
        model = built.model
        assert isinstance(model, Mvp)
        batch = to_batch(case.inputs[scenario], dtype)
        with outputs_of({"img_embedding": model.regions.linear}) as seen:
            states = vqa_states(model, batch)
        logits = vqa_logits(model, states)
        loss = vqa_loss(logits, batch)
        assert states.positive is not None, "questions are fused"
        joint = states.positive[-1]
        return Computed(
            {
                "loss_total": loss,
                "logits": logits,
                "mlm_logits": logits,
                "img_embedding": seen["img_embedding"][0],
                "txt_embeds": states.text,
                "vis_embeds": torch.cat([states.tags, states.regions], dim=1),
                "joint_embeds": joint,
                "pooled": model.pool(joint),
                "sim_mat": model.text_features(states.text) @ model.image_features(states.tags).T,
            },
            loss,
        )


def to_batch(inputs: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    """The arguments of the official forward as a batch of ours (models/tasks/mvp_vqa.py)."""
    return pairs_batch(inputs, dtype) | {"answer_scores": inputs["labels"].to(dtype)}
