"""Pre-training of MVP (MVPTR, arXiv 2201.12596).

The recordings replaced every random draw: the first half of the batch gets its hardest image and the second half its hardest text, a phrase
takes its best region, and the other image it is compared with is the first of the batch that is not its own.

Shapes: R pairs, L text positions, T tag positions, V regions, M masked positions.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from common.labels import IGNORED
from models.checkpoints.adapter import HeadCounts
from models.checkpoints.mvp import MvpAdapter
from models.mvp.config import MvpConfig, MvpLearning
from models.mvp.model import MVP_HEADS, Mvp, MvpHead
from models.tasks.mvp import MVP_OBJECTIVES, MvpStates, mvp_scores, mvp_states
from parity.case import Case
from parity.families.shared import Seen, outputs_of, with_weights
from parity.family import Built, Computed

OFFICIAL = ("mvp_pytorch", "oscar.modeling.modeling_vlbert.BiBertImgForPreTraining")
LOSS_NAMES = {
    "concepts": "loss_vis_mlm",
    "itc": "loss_retrieval",
    "mlm": "loss_mlm",
    "itm": "loss_itm",
    "phrase_grounding": "loss_wra",
    "qa": "loss_qa",
}
NO_LABEL = -1


class MvpPretraining:
    """The class whose forward computes all objectives of MVP."""

    def covers(self, case: Case) -> bool:
        """See `Family`."""
        return (case.repo, case.official_class) == OFFICIAL

    def build(self, case: Case, dtype: torch.dtype) -> Built:
        """See `Family`."""
        config = case_config(case)
        heads: list[MvpHead] = [head for head in MVP_HEADS if head != "qa" or config.qa_answers]
        return with_weights(Mvp(config, heads), case, MvpAdapter().table(config), dtype)

    def run(self, built: Built, case: Case, scenario: str, dtype: torch.dtype) -> Computed | None:
        """See `Family`."""
        model = built.model
        assert isinstance(model, Mvp)
        inputs = case.inputs[scenario]
        batch, learning = to_batch(inputs, dtype), learning_of(scenario, inputs)
        objectives = [name for name in MVP_OBJECTIVES if name != "qa" or "answers" in batch]
        watched = {"img_embedding": model.regions.linear, "vis_mlm_logits": model.concept_head, "mlm_logits": model.mlm_head}
        watched |= {"itm_logits": model.itm_head}
        if "qa" in objectives:
            watched["qa_logits"] = model.qa_head
        with outputs_of(watched) as seen:
            states = mvp_states(model, batch, objectives, learning)
            losses = mvp_scores(model, batch, states, objectives, learning, "exact")
        total = torch.stack(list(losses.values())).sum()
        outputs = {LOSS_NAMES[name]: value for name, value in losses.items()} | {"loss_total": total}
        return Computed(outputs | _logits(batch, seen) | state_outputs(model, states), total)


def case_config(case: Case) -> MvpConfig:
    """The model of a case: sizes from its weights' shapes; the number of heads and epsilons, which no shape tells, as recorded."""
    recorded = case.dims["bert"]
    shapes = {name: tensor.shape for name, tensor in case.weights.items()}
    config = MvpAdapter().config(shapes, HeadCounts(text=recorded["num_attention_heads"]))
    names = {"layer_norm_eps": "layer_norm_eps", "img_layer_norm_eps": "region_norm_eps"}
    return config.model_copy(update={ours: recorded[theirs] for theirs, ours in names.items() if theirs in recorded})


def learning_of(scenario: str, inputs: Mapping[str, Any]) -> MvpLearning:
    """How a scenario chooses negatives for phrase grounding: as an argument says, else as the scenario is called."""
    mode = inputs.get("wra_mod", "hard" if scenario.startswith("hard") else "sample")
    layer = inputs.get("wra_layer")
    return MvpLearning(grounding=mode, grounding_layer=-1 if layer is None else layer)


def to_batch(inputs: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    """The arguments of the official forward as a batch of ours (models/tasks/mvp.py).

    Args:
        inputs: input_ids, token_type_ids, attention_mask and masked_lm_labels of both sides, img_feats, phrase_index (first and behind the
            last position), and qa_ans where a question is asked.
        dtype: of the regions.
    """
    rows, length = inputs["input_ids_a"].shape
    positions, labels = _hidden(inputs["masked_lm_labels_a"])
    tag_positions, tag_labels = _hidden(inputs["masked_lm_labels_b"][:, : inputs["input_ids_b"].shape[1]])
    batch = pairs_batch(inputs, dtype) | {
        "phrase_mask": _between(inputs["phrase_index"], length),
        "masked_positions": positions,
        "mlm_labels": labels,
        "masked_tag_positions": tag_positions,
        "tag_labels": tag_labels,
        "other_draws": torch.zeros(rows),
        "grounding_draws": torch.zeros(rows, length, 2),
    }
    if isinstance(answers := inputs.get("qa_ans"), Tensor):
        batch["answers"] = torch.where(answers == NO_LABEL, IGNORED, answers)
    return batch


def pairs_batch(inputs: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    """What of `to_batch` says which texts and images there are; each is a pair of its own."""
    rows, tags = inputs["input_ids_b"].shape
    return {
        "text_ids": inputs["input_ids_a"],
        "text_mask": inputs["attention_mask_a"].bool(),
        "text_types": inputs["token_type_ids_a"],
        "tag_ids": inputs["input_ids_b"],
        "tag_mask": inputs["attention_mask_b"][:, :tags].bool(),
        "tag_types": inputs["token_type_ids_b"],
        "regions": inputs["img_feats"].to(dtype),
        "region_mask": inputs["attention_mask_b"][:, tags:].bool(),
        "sample_ids": torch.arange(rows),
        "group": torch.zeros(rows, dtype=torch.int64),
        "side_draws": torch.arange(rows) / rows,
    }


def _hidden(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Labels [R, L] at all positions as positions [R, M] and labels [R, M] of the hidden ones, in order."""
    known = labels != NO_LABEL
    most = max(1, int(known.sum(dim=1).max()))
    positions = known.int().argsort(dim=1, descending=True, stable=True)[:, :most]
    chosen = labels.gather(1, positions)
    return positions, torch.where(chosen == NO_LABEL, IGNORED, chosen)


def _between(bounds: Tensor, length: int) -> Tensor:
    """Bounds [R, 2] as a mask [R, length]."""
    places = torch.arange(length)
    return (places >= bounds[:, :1]) & (places < bounds[:, 1:])


def _logits(batch: dict[str, Tensor], seen: Seen) -> dict[str, Tensor]:
    """What the heads gave; recorded at hidden positions alone."""
    outputs = {name: values[0] for name, values in seen.items()}
    for name, labels in (("mlm_logits", "mlm_labels"), ("vis_mlm_logits", "tag_labels")):
        outputs[name] = outputs[name][batch[labels] != IGNORED]
    if "qa_logits" in outputs:
        outputs["qa_logits"] = outputs["qa_logits"].squeeze(1)
    return outputs


def state_outputs(model: Mvp, states: MvpStates) -> dict[str, Tensor]:
    """States of the encoders, similarities, and the rows of which wrong pairs are made. The official code fuses wrong pairs first."""
    assert states.text_features is not None and states.image_features is not None
    assert states.positive is not None and states.negative is not None and states.wrong is not None
    return {
        "txt_embeds": states.text,
        "vis_embeds": torch.cat([states.tags, states.regions], dim=1),
        "joint_embeds": states.negative[-1],
        "joint_embeds.1": states.positive[-1],
        "pooled": model.pool(states.negative[-1]),
        "pooled.1": model.pool(states.positive[-1]),
        "sim_mat": states.text_features @ states.image_features.T,
        "hard_img_index": states.wrong.image,
        "hard_txt_index": states.wrong.text,
    }
