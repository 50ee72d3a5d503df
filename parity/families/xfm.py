"""Pre-training of X-FM (arXiv 2301.05065): text, vision and fusion encoder, each a network of its own.

Shapes: B images, R texts or regions, N patches, L text tokens.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from models.checkpoints.xfm import Xfm
from models.config import ModelConfig
from models.tasks.losses import Scores, Variants, stream_losses
from models.vlm import ALL_HEADS, HEADS, Head, VisionLanguageModel
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
from parity.families.xvlm import vision_outputs
from parity.family import Built, Computed

CLASS = ("XFM", "models.model_pretrain.XFM")
NAMES = {**LOSS_NAMES, "text_mlm": "loss_mlm", "mim": "loss_mim"}
"""Our names of losses to the recorded ones."""
UNWEIGHTED = ("box_l1", "box_giou", "text_mlm")
"""Losses that the official weights of data sources leave alone."""
WATCHED = (
    "encode_images",
    "encode_regions",
    "encode_masked_images",
    "encode_text",
    "fuse",
    "image_features",
    "text_features",
    "match_logits",
    "masked_lm_logits",
    "text_masked_lm_logits",
    "code_logits",
    "codes",
    "boxes",
)


@dataclass(frozen=True)
class Stream:
    """One scenario as a batch of a pre-training stream."""

    batch: dict[str, Tensor]
    objectives: tuple[str, ...]
    weight: float
    """Of the data source."""
    variants: Variants
    negatives: dict[str, Tensor] = field(default_factory=dict)
    """What is drawn, under the recorded names."""


class XfmPretraining:
    """The class XFM with BEiT-2, or with another vision encoder and no masked images."""

    def covers(self, case: Case) -> bool:
        """See `Family`."""
        return (case.repo, case.official_class) == CLASS

    def build(self, case: Case, dtype: torch.dtype) -> Built:
        """See `Family`."""
        config = case_config(case)
        heads: tuple[Head, ...] = ALL_HEADS if config.vision.kind == "beit2" else (*HEADS, "text_mlm")
        return vision_language_model(config, heads, case, Xfm().table(config), dtype)

    def run(self, built: Built, case: Case, scenario: str, dtype: torch.dtype) -> Computed | None:
        """See `Family`."""
        model = built.model
        assert isinstance(model, VisionLanguageModel)
        stream = scenario_stream(model, case, scenario, dtype)
        blocks = vision_blocks(model.vision.get_submodule("backbone"))
        with watching(model, WATCHED) as seen, outputs_of({**blocks, "bbox_raw": model.box_head}) as inner:
            if model.visual_tokenizer is not None and stream.objectives == ("mim",):
                model.encode_images(stream.batch["image"])  # the official code always does, ours where something uses the tokens
            losses = stream_losses(model, stream.batch, stream.objectives, "exact", stream.variants)
        return computed(stream, losses, seen, inner)


def case_config(case: Case) -> ModelConfig:
    """The model of a case, the visual tokenizer's heads as recorded."""
    config = recorded_config(case, Xfm())
    if config.visual_tokenizer is None:
        return config
    tokenizer = config.visual_tokenizer.model_copy(update={"heads": case.dims["vqkd_encoder"]["num_heads"]})
    return config.model_copy(update={"visual_tokenizer": tokenizer})


def scenario_stream(model: VisionLanguageModel, case: Case, scenario: str, dtype: torch.dtype) -> Stream:
    """A scenario as a batch with the likeliest negatives under the model's present weights, and with the recorded hidden patches."""
    batch = to_batch(case.inputs[scenario], dtype)
    hidden = next((outputs[scenario]["mim_mask"] for outputs in case.outputs.values() if "mim_mask" in outputs.get(scenario, {})), None)
    if hidden is not None:
        batch["patch_hidden"] = hidden.bool()
    source = _source(batch, scenario)
    stopped = {"itm", "box"} | ({"mlm"} if case.base.get("detach_text_forMLM", True) else set())
    variants = Variants(frozenset(stopped), pooled_mim=not case.base.get("mim_cls_only", False))
    stream = Stream(batch, _objectives(batch, source), case.base.get(f"w{source}", 1.0), variants)
    if "itm" not in stream.objectives:
        return stream
    with torch.no_grad(), watching(model, ("image_features", "text_features")) as seen:
        stream_losses(model, batch, ["itc"], "exact")
    draws, *drawn = likeliest_negatives(seen["image_features"][0], seen["text_features"][0], model.temperature, batch)
    return replace(
        stream, batch=batch | {"negative_draws": draws}, negatives=dict(zip(("neg_image_idx", "neg_text_idx"), drawn, strict=True))
    )


def _source(batch: dict[str, Tensor], scenario: str) -> str:
    """The official data source; of pairs the scenario's name tells whether they come from the web."""
    if "image" not in batch:
        return "text"
    if "text_ids" not in batch:
        return "imagenet"
    if "image_index" in batch:
        return "region"
    return scenario if scenario in ("web", "aux") else "image"


def _objectives(batch: dict[str, Tensor], source: str) -> tuple[str, ...]:
    """What the official forward computes of a data source."""
    pairs = ("itc", "itm", "mlm")
    names = {"text": ("text_mlm",), "imagenet": (), "region": (*pairs, "box"), "aux": ("mlm",)}.get(source, pairs)
    return (*names, "mim") if "patch_hidden" in batch else names


def computed(stream: Stream, losses: Scores, seen: Seen, inner: Seen) -> Computed:
    """What the training code computed, under the recorded names."""
    weighted = {name: value if name in UNWEIGHTED else value * stream.weight for name, value in losses.items()}
    total = torch.stack(list(weighted.values())).sum()
    outputs = {"loss_total": total} | {NAMES[name]: value for name, value in weighted.items()} | stream.negatives
    if "text_mlm" in losses:
        return Computed(outputs | {"mlm_logits": seen["text_masked_lm_logits"][0]}, total)
    absent = set(NAMES.values()) - set(outputs)
    outputs |= dict.fromkeys(absent, torch.zeros_like(total)) | vision_outputs(stream.batch, seen) | _block_outputs(inner)
    if "text_ids" in stream.batch:
        outputs |= _pair_outputs(stream, seen)
    if "mim" in losses:
        outputs |= _masked_image_outputs(stream.batch["patch_hidden"], seen)
    if "box_l1" in losses:
        outputs |= {"bbox_raw": inner["bbox_raw"][0], "bbox_pred": seen["boxes"][0]}
    return Computed(outputs, total)


def _block_outputs(inner: Seen) -> dict[str, Tensor]:
    """Of the whole images, then of those with hidden patches."""
    blocks = {name: values for name, values in inner.items() if name.startswith("vision_block")}
    return {
        name if call == 0 else f"{name}.{call}": as_tokens(value) for name, values in blocks.items() for call, value in enumerate(values)
    }


def _pair_outputs(stream: Stream, seen: Seen) -> dict[str, Tensor]:
    """Text states, features and fused states. Fused in one call: the true pairs, both negatives, masked texts, boxes."""
    outputs: dict[str, Tensor] = {"fuse_mlm_logits": seen["masked_lm_logits"][0]}
    encoded = seen["encode_text"][0].split(len(stream.batch["text_ids"]))
    outputs |= dict(zip(("text_embeds", "text_embeds.1"), encoded, strict=False))
    if "itm" in stream.objectives:
        states = seen["fuse"][0]
        outputs |= {"image_feat": seen["image_features"][0], "text_feat": seen["text_features"][0]}
        outputs |= {"cross_embeds": states[0], "cross_embeds.1": torch.cat(states[1:3]), "itm_logits": torch.cat(seen["match_logits"])}
    if "box" in stream.objectives:
        outputs["cross_embeds.2"] = seen["fuse"][0][-1]
    return outputs


def _masked_image_outputs(hidden: Tensor, seen: Seen) -> dict[str, Tensor]:
    """Tokens of the images with hidden patches, and where a visual tokenizer is there its codes and their logits at hidden patches."""
    outputs = {"mim_mask": hidden, "vision_embeds_masked": seen["encode_masked_images"][0]}
    if seen["codes"]:
        outputs |= {"codebook_ids": seen["codes"][0], "mim_token_logits": seen["code_logits"][0][hidden]}
    return outputs
