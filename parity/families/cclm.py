"""Pre-training of CCLM (arXiv 2206.00621): images and regions with texts of many languages, and parallel text.

The first release (repository CCLM) has one stack for text and fusion, the one on X2-VLM's weights (repository X2-VLM) a fusion encoder of
its own, and therefore encodes masked texts in a call of their own, which is recorded, too.

Shapes: R texts or pairs of texts, L and K tokens of the first and the second text, H text width.
"""

from typing import Any

import torch
from torch import Tensor

from models.checkpoints.cclm import CclmV1, SplitX2vlm
from models.tasks.losses import stream_losses
from models.tasks.parallel import parallel_losses
from models.vlm import HEADS, VisionLanguageModel
from parity.case import Case
from parity.families.shared import (
    LOSS_NAMES,
    Seen,
    likeliest_negatives,
    outputs_of,
    recorded_config,
    to_batch,
    vision_blocks,
    vision_language_model,
    watching,
)
from parity.families.xvlm import WATCHED, Stream, computed
from parity.family import Built, Computed

ADAPTERS = {
    ("CCLM", "models.model_pretrain_cclm.CrossViewLM"): CclmV1(),
    ("X2-VLM", "models.model_pretrain.CrossViewLM"): SplitX2vlm(),
    ("X2-VLM", "models.model_pretrain.XVLMPlus"): SplitX2vlm(),
}
PAIR = {
    "text_ids_masked": "pair_ids_masked",
    "text_atts_masked": "pair_mask",
    "masked_pos": "pair_masked_positions",
    "masked_ids": "pair_mlm_labels",
}
"""Official arguments of both texts in one row to ours."""


class CrossView:
    """Both classes named CrossViewLM, and XVLMPlus, which is the second without parallel text."""

    def covers(self, case: Case) -> bool:
        """See `Family`."""
        return (case.repo, case.official_class) in ADAPTERS

    def build(self, case: Case, dtype: torch.dtype) -> Built:
        """See `Family`."""
        adapter = ADAPTERS[case.repo, case.official_class]
        config = recorded_config(case, adapter)
        return vision_language_model(config, HEADS, case, adapter.table(config), dtype)

    def run(self, built: Built, case: Case, scenario: str, dtype: torch.dtype) -> Computed | None:
        """See `Family`."""
        model = built.model
        assert isinstance(model, VisionLanguageModel)
        split = isinstance(ADAPTERS[case.repo, case.official_class], SplitX2vlm)
        stream = scenario_stream(model, case, scenario, dtype)
        blocks = vision_blocks(model.vision.get_submodule("backbone"))
        with watching(model, WATCHED) as seen, outputs_of({**blocks, "bbox_raw": model.box_head}) as inner:
            if _is_parallel(stream.batch):
                losses = parallel_losses(model, stream.batch, stream.objectives, "exact")
                total = torch.stack(list(losses.values())).sum()
                named = {LOSS_NAMES[name]: value for name, value in losses.items()} | {"loss_total": total} | stream.negatives
                return Computed(named | _parallel_outputs(stream, seen, split), total)
            losses = stream_losses(model, stream.batch, stream.objectives, "exact")
        result = computed(stream, losses, seen, inner)
        if "image" not in stream.batch:
            return result
        return Computed(result.outputs | _caption_outputs(stream, seen, split), result.total)


def scenario_stream(model: VisionLanguageModel, case: Case, scenario: str, dtype: torch.dtype) -> Stream:
    """A scenario as a batch whose negatives are the likeliest under the model's present weights."""
    inputs = case.inputs[scenario]
    batch = to_batch(inputs, dtype)
    if isinstance(inputs.get("text_ids_2"), Tensor):
        batch |= {"text_ids_2": inputs["text_ids_2"], "text_mask_2": inputs["text_atts_2"].bool()}
    if _is_parallel(batch):
        return _parallel_stream(model, batch, inputs if case.base.get("use_tlm") else {})
    if "image" not in batch:
        return Stream(batch, {"mlm": 1.0})
    names = ("itc", "itm", "mlm", *(["box"] if "target_box" in batch else []), *(["ttc"] if "text_ids_2" in batch else []))
    with torch.no_grad(), watching(model, ("image_features", "text_features")) as seen:
        stream_losses(model, batch, ["itc"], "exact")
    return _with_negatives(model, batch, names, seen["image_features"][0], seen["text_features"][0])


def _is_parallel(batch: dict[str, Tensor]) -> bool:
    return "text_ids_2" in batch and "image" not in batch


def _parallel_stream(model: VisionLanguageModel, batch: dict[str, Tensor], pair: dict[str, Any]) -> Stream:
    """Two texts of one meaning; with `pair` the masked language modelling is of both in one row, and there is no matching."""
    if pair:
        batch |= {ours: pair[theirs] for theirs, ours in PAIR.items()}
        batch["pair_mask"] = batch["pair_mask"].bool()
        return Stream(batch, dict.fromkeys(("ttc", "tlm"), 1.0))
    with torch.no_grad(), watching(model, ("text_features",)) as seen:
        parallel_losses(model, batch, ["ttc"], "exact")
    return _with_negatives(model, batch, ("ttc", "ttm", "mlm"), *seen["text_features"])


def _with_negatives(
    model: VisionLanguageModel, batch: dict[str, Tensor], objectives: tuple[str, ...], first: Tensor, second: Tensor
) -> Stream:
    draws, *drawn = likeliest_negatives(first, second, model.temperature, batch)
    negatives: dict[str, Tensor] = dict(zip(("neg_image_idx", "neg_text_idx"), drawn, strict=True))
    return Stream(batch | {"negative_draws": draws}, dict.fromkeys(objectives, 1.0), negatives)


def _caption_outputs(stream: Stream, seen: Seen, split: bool) -> dict[str, Tensor]:
    """What is recorded of image scenarios beyond X-VLM's: second captions, or masked texts where they have calls of their own."""
    if "text_ids_2" in stream.batch:
        return {"text_embeds.1": seen["encode_text"][1], "text_feat.1": seen["text_features"][1]}
    if not split:
        return {}
    masked = seen["encode_text"][0].split(len(stream.batch["text_ids"]))[1]
    fused = dict(zip(("cross_embeds.2", "cross_embeds.3"), seen["fuse"][0][3:], strict=False))
    return {"text_embeds.1": masked, **fused}


def _parallel_outputs(stream: Stream, seen: Seen, split: bool) -> dict[str, Tensor]:
    """Text states, features, fused states and logits of parallel text."""
    batch = stream.batch
    states = seen["encode_text"][0].split(len(batch["text_ids"]))  # all padded to the longest
    lengths = [batch[name].shape[1] for name in ("text_ids", "text_ids_2", "text_ids")]
    outputs = {f"text_embeds.{index}": rows[:, :length] for index, (rows, length) in enumerate(zip(states, lengths, strict=False))}
    outputs["text_embeds"] = outputs.pop("text_embeds.0")
    outputs |= dict(zip(("text_feat", "text_feat.1"), seen["text_features"], strict=True)) | {"mlm_logits": seen["masked_lm_logits"][0]}
    if "ttm" in stream.objectives:
        true, *wrong = seen["fuse"][0]
        outputs |= {"cross_embeds": true, "cross_embeds.1": torch.cat(wrong), "itm_logits": torch.cat(seen["match_logits"])}
        if split:
            outputs["cross_embeds.2"] = seen["fuse"][1][0]
    return outputs
