"""Pre-training of X-VLM (arXiv 2111.08276) and X2-VLM (2211.12402): vision encoder, and a BERT stack whose last layers fuse.

Shapes: B images, R texts or regions, N patches, L text tokens.
"""

from typing import Any

import torch
from torch import Tensor

from models.checkpoints.adapter import Adapter
from models.checkpoints.registry import detect
from models.checkpoints.vision_keys import vision_kind
from models.tasks.losses import Scores, stream_losses
from models.vision.regions import RegionViews
from models.vlm import HEADS, VisionLanguageModel
from parity.case import Case
from parity.families.shared import (
    LOSS_NAMES,
    Seen,
    as_tokens,
    likeliest_negatives,
    outputs_of,
    recorded_config,
    to_batch,
    vision_blocks,
    vision_language_model,
    watching,
)
from parity.family import Built, Computed, Stream

CLASSES = {("X-VLM", "models.model_pretrain.XVLM"), ("X2-VLM", "models.model_pretrain.XVLM")}
WATCHED = (
    "encode_images",
    "encode_regions",
    "encode_text",
    "fuse",
    "image_features",
    "text_features",
    "match_logits",
    "masked_lm_logits",
    "boxes",
)


class JointPretraining:
    """Both classes named XVLM: they differ in their vision encoders only."""

    def covers(self, case: Case) -> bool:
        """See `Family`. The code also had a DeiT and a RoBERTa, of which nothing was published."""
        return (case.repo, case.official_class) in CLASSES and vision_kind(case.weights) is not None and not case.base.get("use_roberta")

    def build(self, case: Case, dtype: torch.dtype) -> Built:
        """See `Family`."""
        adapter = case_adapter(case)
        config = recorded_config(case, adapter)
        return vision_language_model(config, HEADS, case, adapter.table(config), dtype)

    def run(self, built: Built, case: Case, scenario: str, dtype: torch.dtype) -> Computed | None:
        """See `Family`."""
        model = built.model
        assert isinstance(model, VisionLanguageModel)
        stream = self.stream(built, case, scenario, dtype)
        blocks = vision_blocks(model.vision.get_submodule("backbone"))
        with watching(model, WATCHED) as seen, outputs_of({**blocks, "bbox_raw": model.box_head}) as inner:
            losses = stream_losses(model, stream.batch, stream.objectives, "exact")
        return computed(stream, losses, seen, inner)

    def stream(self, built: Built, case: Case, scenario: str, dtype: torch.dtype) -> Stream:
        """See `Trainable`."""
        model = built.model
        assert isinstance(model, VisionLanguageModel)
        batch = to_batch(case.inputs[scenario], dtype)
        objectives = objectives_of(batch)
        if "itm" in objectives:
            with torch.no_grad(), watching(model, ("image_features", "text_features")) as seen:
                stream_losses(model, batch, {"itc": 1.0}, "exact")
            image, text = seen["image_features"][0], seen["text_features"][0]
            draws, images, texts = likeliest_negatives(image, text, model.temperature, batch)
            return Stream({**batch, "negative_draws": draws}, objectives, {"neg_image_idx": images, "neg_text_idx": texts})
        return Stream(batch, objectives)


def case_adapter(case: Case) -> Adapter[Any]:
    """The format of a case's weights, told by their names and shapes as that of any file."""
    return detect({name: tensor.shape for name, tensor in case.weights.items()}, str(case.folder))


def objectives_of(batch: dict[str, Tensor]) -> dict[str, float]:
    """What the official forward computes of such a batch."""
    names = ["itc", "itm"] if "image" in batch else []
    names += ["mlm"] if "text_ids_masked" in batch else []
    names += ["box"] if "target_box" in batch else []
    return dict.fromkeys(names, 1.0)


def computed(stream: Stream, losses: Scores, seen: Seen, inner: Seen) -> Computed:
    """What the training code computed, under the recorded names."""
    batch, total = stream.batch, torch.stack(list(losses.values())).sum()
    outputs = {LOSS_NAMES[name]: value for name, value in losses.items()} | {"loss_total": total} | stream.negatives
    if "mlm" in stream.objectives:
        outputs["mlm_logits"] = seen["masked_lm_logits"][0]
    if "box" in stream.objectives:
        outputs |= {"bbox_raw": inner["bbox_raw"][0], "bbox_pred": seen["boxes"][0]}
    if "image" in batch:
        outputs |= {name: block_output(values[0], batch) for name, values in inner.items() if name.startswith("vision_block")}
        outputs |= vision_outputs(batch, seen) | pair_outputs(batch, seen, stream.objectives)
    return Computed(outputs, total)


def vision_outputs(batch: dict[str, Tensor], seen: Seen) -> dict[str, Tensor]:
    """Visual tokens of each text's image or region, and which of them count."""
    if "patch_mask" not in batch:
        tokens: Tensor = seen["encode_images"][0]
        return {"vision_embeds": tokens, "vision_atts": torch.ones(tokens.shape[:2], dtype=torch.int64)}
    regions: RegionViews
    tokens, regions = seen["encode_regions"][0]
    whole = tokens[regions.image_index]  # [R, 1+N, D]
    patches = whole[:, 1:] if regions.patches is None else regions.patches
    return {
        "vision_embeds": torch.cat([regions.tokens[:, None], patches], dim=1),
        "vision_embeds_full": whole,
        "vision_atts": torch.nn.functional.pad(regions.patch_mask, (1, 0), value=True).long(),
    }


def pair_outputs(batch: dict[str, Tensor], seen: Seen, objectives: dict[str, float]) -> dict[str, Tensor]:
    """Features, negatives and fused states. Fused in one call: the true pairs, both negatives, masked texts, boxes."""
    rows = len(batch["text_ids"])
    outputs = {"text_embeds": seen["encode_text"][0][:rows]}
    outputs |= {"image_feat": seen["image_features"][0], "text_feat": seen["text_features"][0]}
    states = seen["fuse"][0]
    outputs |= {"cross_embeds": states[0], "cross_embeds.1": torch.cat(states[1:3]), "itm_logits": torch.cat(seen["match_logits"])}
    if "box" in objectives:
        outputs["cross_embeds.2"] = states[-1]
    return outputs


def block_output(states: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """A vision block's output as recorded: where regions pass the block beside their images, the official code has the regions first."""
    images, regions = len(batch["image"]), len(batch.get("patch_mask", ()))
    if "patch_mask" in batch and len(states) == images + regions:
        states = states.roll(-images, dims=0)
    return as_tokens(states)
