"""Grounding by box regression: X-VLM, X2-VLM and X-FM fine-tuned on RefCOCO+, and X-VLM's stage on regions before it.

Shapes: R texts with one image each, L text tokens.
"""

from dataclasses import replace

import torch

from models.checkpoints.adapter import Adapter
from models.checkpoints.x2vlm import X2vlm
from models.checkpoints.xfm import Xfm
from models.checkpoints.xvlm import Xvlm
from models.config import ModelConfig
from models.tasks.losses import stream_losses
from models.vlm import VisionLanguageModel
from parity.case import Case
from parity.families.shared import LOSS_NAMES, as_tokens, outputs_of, recorded_config, to_batch, vision_blocks, watching, with_weights
from parity.family import Built, Computed

ADAPTERS: dict[tuple[str, str], Adapter[ModelConfig]] = {
    ("X-VLM", "models.model_bbox.XVLM"): Xvlm(),
    ("X2-VLM", "models.model_grounding.XVLMForGrounding"): X2vlm(),
    ("XFM", "models.model_grounding.XFMForGrounding"): Xfm(),
}
WATCHED = ("encode_images", "encode_text", "fuse", "boxes")
IDLE = ("vision.backbone.mask_token", "mlm_head.", "text_mlm_head.")
"""What X-FM's files hold and grounding leaves idle."""


class BoxGrounding:
    """The classes whose forward gives a box for each text."""

    def covers(self, case: Case) -> bool:
        """See `Family`."""
        return (case.repo, case.official_class) in ADAPTERS

    def build(self, case: Case, dtype: torch.dtype) -> Built:
        """See `Family`."""
        adapter = ADAPTERS[case.repo, case.official_class]
        config = recorded_config(case, adapter)
        table = adapter.table(config)
        known = {name: tensor for name, tensor in case.weights.items() if not (table.to_ours(name) or "").startswith(IDLE)}
        return with_weights(VisionLanguageModel(config, ["box"]), replace(case, weights=known), table, dtype)

    def run(self, built: Built, case: Case, scenario: str, dtype: torch.dtype) -> Computed | None:
        """See `Family`. The official forward gives boxes and losses in one."""
        model = built.model
        assert isinstance(model, VisionLanguageModel)
        inputs = case.inputs[scenario]
        batch = to_batch(inputs, dtype)
        rows = len(batch["text_ids"])
        batch |= {"target_box": inputs["target_bbox"].to(dtype), "is_image": torch.zeros(rows, dtype=torch.bool)}
        inner = {**vision_blocks(model.vision.get_submodule("backbone")), "bbox_raw": model.box_head}
        with watching(model, WATCHED) as seen, outputs_of(inner) as within:
            losses = stream_losses(model, batch, ["box"], "exact")
        total = torch.stack(list(losses.values())).sum()
        tokens, boxes = seen["encode_images"][0], seen["boxes"][0]
        outputs = {LOSS_NAMES[name]: value for name, value in losses.items()} | {"loss_total": total}
        outputs |= {name: as_tokens(values[0]) for name, values in within.items()}
        outputs |= {"vision_embeds": tokens, "vision_atts": torch.ones(tokens.shape[:2], dtype=torch.int64)}
        outputs |= {"text_embeds": seen["encode_text"][0], "cross_embeds": seen["fuse"][0][0]}
        return Computed(outputs | {"bbox_pred": boxes, "output_coord": boxes}, total)
