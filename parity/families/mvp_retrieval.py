"""Fine-tuning of MVP for retrieval, and the two steps of its evaluation.

The recordings call the encoders three times: in training, for features alone ("coarse"), and for matching true pairs ("fine").

Shapes: R pairs, T tag positions.
"""

import torch
from torch import Tensor

from models.checkpoints.mvp import MvpAdapter
from models.tasks.base import Batch
from models.tasks.mvp import mvp_scores, mvp_states
from models.tasks.mvp_retrieval import MvpRetriever
from parity.case import Case
from parity.families.mvp import LOSS_NAMES, case_config, learning_of, pairs_batch, state_outputs
from parity.families.shared import outputs_of, with_weights
from parity.family import Built, Computed

OFFICIAL = ("mvp_pytorch", "oscar.modeling.modeling_vlbert.BiImageBertForRetrieval")
OBJECTIVES = ("itc", "itm")


class MvpRetrieval:
    """The class whose forward has the mods train, coarse and fine."""

    def covers(self, case: Case) -> bool:
        """See `Family`."""
        return (case.repo, case.official_class) == OFFICIAL

    def build(self, case: Case, dtype: torch.dtype) -> Built:
        """See `Family`."""
        config = case_config(case)
        hidden = case.weights.get("classifier.0.weight")
        model = MvpRetriever(config, None if hidden is None else len(hidden))
        return with_weights(model, case, MvpAdapter().table(config), dtype)

    def run(self, built: Built, case: Case, scenario: str, dtype: torch.dtype) -> Computed | None:
        """See `Family`."""
        model = built.model
        assert isinstance(model, MvpRetriever)
        inputs = case.inputs[scenario]
        batch, learning = pairs_batch(inputs, dtype), learning_of(scenario, inputs)
        with outputs_of({"img_embedding": model.regions.linear, "logits": model.cls_head}) as seen:
            states = mvp_states(model, batch, OBJECTIVES, learning)
            losses = mvp_scores(model, batch, states, OBJECTIVES, learning, "exact")
        total = torch.stack(list(losses.values())).sum()
        rows = len(batch["text_ids"])
        outputs = {LOSS_NAMES[name]: value for name, value in losses.items()} | {"loss_total": total}
        outputs |= {"img_embedding": seen["img_embedding"][0], "logits": seen["logits"][0], "cls_logits": seen["logits"][0]}
        outputs["labels"] = (torch.arange(2 * rows) < rows).long()
        return Computed(outputs | state_outputs(model, states) | _evaluated(model, batch), total)


@torch.no_grad()
def _evaluated(model: MvpRetriever, batch: Batch) -> dict[str, Tensor]:
    """Features and matching logits of the pairs as evaluation computes them."""
    with outputs_of({"img": model.regions.linear, "joint": model.joint_encoder, "logits": model.cls_head}) as seen:
        text = model.encode_text(batch["text_ids"], batch["text_mask"], batch["text_types"])
        tags, regions = model.encode_image(batch["tag_ids"], batch["tag_mask"], batch["regions"], batch["region_mask"], batch["tag_types"])
        logits = model.match(text, batch["text_mask"], regions, batch["region_mask"])
    image, joint = torch.cat([tags, regions], dim=1), seen["joint"][0][-1]
    outputs = {"global_txt": model.text_features(text), "global_img": model.image_features(tags)}
    for call in (1, 2):  # coarse and fine encode the same
        outputs |= {f"img_embedding.{call}": seen["img"][0], f"txt_embeds.{call}": text, f"vis_embeds.{call}": image}
    outputs |= {"joint_embeds.2": joint, "pooled.2": model.pool(joint), "fine_logits": logits, "cls_logits.1": logits}
    return outputs | {"sim_mat.1": outputs["global_txt"] @ outputs["global_img"].T}
