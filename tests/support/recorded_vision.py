"""Vision encoders against recorded tensors of the official code, through the names that official files use."""

import torch
from torch import Tensor

from models.checkpoints.keys import KeyTable, convert
from models.checkpoints.vision_keys import DERIVED, OFFICIAL, vision_config, vision_prefixes
from models.config import ClipVitConfig
from models.vision.encoder import VisionEncoder
from models.vlm import build_vision
from parity.case import Case

TOLERANCES = {torch.float32: (5e-5, 1e-5), torch.float64: (1e-9, 0.0)}


def recorded_encoder(case: Case, dtype: torch.dtype) -> VisionEncoder:
    """The encoder of a case, with its weights."""
    weights = {name: tensor for name, tensor in case.weights.items() if name.startswith(OFFICIAL)}
    config = vision_config({name: tensor.shape for name, tensor in weights.items()}, case.dims["vision"].get("num_attention_heads"))
    if isinstance(config, ClipVitConfig):
        config = config.model_copy(update={"local_depth": case.dims["vision"]["local_attn_depth"]})
    tensors = convert(weights, KeyTable(vision_prefixes(config), derived=DERIVED)).tensors
    encoder = build_vision(config)
    encoder.load_state_dict({name.removeprefix("vision."): tensor for name, tensor in tensors.items()})
    return encoder.to(dtype).eval()


def check_images(case: Case, dtype: torch.dtype) -> None:
    """Whole images."""
    recorded = case.outputs[str(dtype).removeprefix("torch.")]["image"]
    encoder = recorded_encoder(case, dtype)
    _compare(encoder(case.inputs["image"]["image"].to(dtype)), recorded["vision_embeds"])


def check_regions(case: Case, dtype: torch.dtype) -> None:
    """Regions and whole images of the region scenario."""
    recorded, inputs = case.outputs[str(dtype).removeprefix("torch.")]["region"], case.inputs["region"]
    encoder = recorded_encoder(case, dtype)
    index = inputs["idx_to_group_img"]
    whole, regions = encoder.encode_regions(inputs["image"].to(dtype), index, inputs["image_atts"][:, 1:].bool())
    patches = whole[index, 1:] if regions.patches is None else regions.patches
    _compare(torch.cat([regions.tokens[:, None], patches], dim=1), recorded["vision_embeds"])
    _compare(whole[index], recorded["vision_embeds_full"])


def _compare(computed: Tensor, recorded: Tensor) -> None:
    atol, rtol = TOLERANCES[recorded.dtype]
    torch.testing.assert_close(computed, recorded, atol=atol, rtol=rtol)
