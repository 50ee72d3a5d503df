"""Classification of images, texts, and texts with one or two images: SNLI-VE, XVNLI, NLVR2, MaRVL, ImageNet, GLUE.

The official forward is recorded twice in each scenario: once for the loss, then for predictions, whose outputs have a number behind.

Shapes: R rows, L text tokens, C classes.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from models.checkpoints.adapter import Adapter
from models.checkpoints.cclm import CclmV1, SplitX2vlm
from models.checkpoints.mvp import MvpAdapter
from models.checkpoints.x2vlm import X2vlm
from models.checkpoints.xfm import Xfm
from models.checkpoints.xvlm import Xvlm
from models.config import FusionConfig, ModelConfig
from models.objectives.classification import classification_loss
from models.tasks.classification import Classifier, HeadConfig, MvpClassifier
from models.tasks.nlvr import AlternatingPairs, ConcatenatedPairs, PairModel
from parity.case import Case
from parity.families.mvp import case_config as mvp_config
from parity.families.mvp import pairs_batch
from parity.families.shared import Seen, as_tokens, outputs_of, recorded_config, vision_blocks, watching, with_weights
from parity.family import Built, Computed

ADAPTERS: dict[tuple[str, str], Adapter[ModelConfig]] = {
    ("X2-VLM", "models.model_classification.XVLMForNLVR"): X2vlm(),
    ("X2-VLM", "models.model_classification.XVLMPlusForMARVL"): SplitX2vlm(),
    ("X2-VLM", "models.model_classification.XVLMForClassification"): X2vlm(),
    ("X2-VLM", "models.model_classification.XVLMPlus4XVNLI"): SplitX2vlm(),
    ("XFM", "models.model_nlvr.XFMForNLVR"): Xfm(),
    ("XFM", "models.model_classification.XFMForClassification"): Xfm(),
    ("X-VLM", "models.model_nlvr.XVLM"): Xvlm(),
    ("CCLM", "models.model_nlvr.NLVRModel"): CclmV1(),
    ("CCLM", "models.model_classification.XVLM4XVNLI"): CclmV1(),
}
MVP = ("mvp_pytorch", "oscar.modeling.modeling_vlbert.BiImageBertForSequenceClassification")
WATCHED = ("encode_images", "encode_text", "fuse")
UNUSED = ("vision.backbone.mask_token", "mlm_head.", "text_mlm_head.")
"""What X-FM's files hold and classification leaves idle."""


class Classifications:
    """Every official class with a `cls_head` over a pair, an image or a text."""

    def covers(self, case: Case) -> bool:
        """See `Family`."""
        return (case.repo, case.official_class) in ADAPTERS

    def build(self, case: Case, dtype: torch.dtype) -> Built:
        """See `Family`."""
        adapter = ADAPTERS[case.repo, case.official_class]
        config = recorded_config(case, adapter)
        table = adapter.table(config)
        known = {name: tensor for name, tensor in case.weights.items() if not (table.to_ours(name) or "").startswith(UNUSED)}
        model = _model(case, config)
        if isinstance(model, AlternatingPairs):  # copies that the file holds of shared projections
            known = {name: tensor for name, tensor in known.items() if name not in case.tied}
        return with_weights(model, replace(case, weights=known), table, dtype)

    def run(self, built: Built, case: Case, scenario: str, dtype: torch.dtype) -> Computed | None:
        """See `Family`."""
        model = built.model
        assert isinstance(model, Classifier | PairModel)
        batch = to_batch(case.inputs[scenario], dtype)
        inner = {**vision_blocks(model.vision.get_submodule("backbone")), "cls_logits": model.cls_head}
        with watching(model, WATCHED) as seen, outputs_of(inner) as within:
            loss = classification_loss(_logits(model, batch), batch["label"], "exact")
            predicted = _logits(model, batch)
        outputs = {"loss_cls": loss, "loss_total": loss, "logits": predicted}
        outputs |= _numbered({name: [as_tokens(value) for value in values] for name, values in within.items()})
        return Computed(outputs | _encoded(model, batch, seen), loss)


class MvpEntailment:
    """The class that was fine-tuned on SNLI-VE."""

    def covers(self, case: Case) -> bool:
        """See `Family`."""
        return (case.repo, case.official_class) == MVP

    def build(self, case: Case, dtype: torch.dtype) -> Built:
        """See `Family`."""
        config = mvp_config(case)
        model = MvpClassifier(config, len(case.weights["classifier.bias"]), ("itc",))  # whose features are recorded beside
        known = {name: tensor for name, tensor in case.weights.items() if not name.startswith(("cls.", "half_mlm.", "qa_head."))}
        known["logit_scale"] = model.logit_scale.detach()  # not in the file, and no similarity recorded is divided by it
        return with_weights(model, replace(case, weights=known), MvpAdapter().table(config), dtype)

    def run(self, built: Built, case: Case, scenario: str, dtype: torch.dtype) -> Computed | None:
        """See `Family`."""
        model = built.model
        assert isinstance(model, MvpClassifier)
        batch = to_mvp_batch(case.inputs[scenario], dtype)
        watched = {"img_embedding": model.regions.linear, "cls_logits": model.cls_head, "pooler": model.pooler}
        watched = {**watched, "txt": model.text_encoder, "vis": model.vision_encoder, "joint": model.joint_encoder}
        with outputs_of(watched) as seen:
            logits = model.logits(batch)
        loss = classification_loss(logits, batch["label"], "exact")
        states = {f"{name}_embeds": seen[name][0][-1] for name in ("txt", "vis", "joint")}
        similarity = model.text_features(states["txt_embeds"]) @ model.image_features(states["vis_embeds"]).T
        outputs = {"loss_total": loss, "logits": logits, "cls_logits": seen["cls_logits"][0], "img_embedding": seen["img_embedding"][0]}
        return Computed({**outputs, **states, "pooled": seen["pooler"][0].tanh(), "sim_mat": similarity}, loss)


def to_batch(inputs: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    """The arguments of an official forward as a batch of ours: image, text_ids, text_atts, targets; any but the last may be missing."""
    given = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
    batch = {"label": given["targets"]}
    if "image" in given:
        batch["image"] = given["image"].to(dtype)
    if "text_ids" in given:
        batch |= {"text_ids": given["text_ids"], "text_mask": given["text_atts"].bool()}
    return batch


def to_mvp_batch(inputs: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    """The arguments of MVP's official forward as a batch of ours."""
    return pairs_batch(inputs, dtype) | {"label": inputs["labels"]}


def _model(case: Case, config: ModelConfig) -> Classifier | PairModel:
    """Ours of an official class; of pairs of fusion layers the config counts both."""
    if "nlvr" in case.official_class.lower() or case.official_class.endswith("MARVL"):
        if isinstance(ADAPTERS[case.repo, case.official_class], Xvlm | CclmV1):
            halved = FusionConfig.model_validate({**config.fusion.model_dump(), "layers": config.fusion.layers // 2})
            return AlternatingPairs(config.model_copy(update={"fusion": halved}))
        return ConcatenatedPairs(config)
    images_alone = not any("text_ids" in given for given in case.inputs.values())
    xfm = case.repo == "XFM"
    head = HeadConfig(
        classes=case.base["num_labels"],
        inputs="image" if images_alone else "image_text",
        image_feature="global_and_mean" if xfm else "global",
        text_layers="text" if xfm else "all",
        depth="deep" if xfm and images_alone else "shallow",
    )
    return Classifier(config, head)


def _logits(model: Classifier | PairModel, batch: dict[str, Tensor]) -> Tensor:
    if isinstance(model, PairModel):
        return model.statement_logits(batch["image"], batch["text_ids"], batch["text_mask"])
    return model.logits(batch)


def _numbered(values: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    """The first call's output under the name itself, later ones with their number behind."""
    return {name if call == 0 else f"{name}.{call}": value for name, outputs in values.items() for call, value in enumerate(outputs)}


def _encoded(model: Classifier | PairModel, batch: dict[str, Tensor], seen: Seen) -> dict[str, Tensor]:
    """Visual tokens, text states, and fused states of all calls."""
    fused = [state for states in seen["fuse"] for state in states]
    masks = [torch.ones(tokens.shape[:2], dtype=torch.int64) for tokens in seen["encode_images"]]
    texts = seen["encode_text"]
    if isinstance(model, ConcatenatedPairs):
        texts = [text for text in texts for _ in range(2)]  # a split model encodes the text for each image, always to the same states
    named = {"vision_embeds": seen["encode_images"], "vision_atts": masks, "text_embeds": texts}
    named["cross_embeds" if "image" in batch else "text_embeds_12L"] = fused
    return _numbered(named)
