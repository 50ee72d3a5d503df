"""Grounding without boxes: where in the image the match of a text comes from (X-VLM section 4.4, after ALBEF's Grad-CAM).

Shapes: R texts with one image each, L text tokens, N = g x g patches, h heads.
"""

import torch
from torch import Tensor

from models.attention import recording
from models.fusion import FusionPass
from models.vlm import VisionLanguageModel


def heat_maps(model: VisionLanguageModel, images: Tensor, ids: Tensor, mask: Tensor, layer: int) -> Tensor:
    """Grad-CAM of the matching head: cross-attention times the positive part of the match's gradient by it.

    One forward pass, and a backward pass from the matching logits down to the chosen layer; weights get no gradient. The mean runs over
    heads and text positions, those of padding counted as 0.

    Args:
        model: encoders and matching head, in evaluation mode.
        images: [R, 3, H, W] bytes or normalised.
        ids: [R, L] token ids.
        mask: [R, L] True for tokens.
        layer: of the fusion encoder, from 0; negative counts from the last.

    Returns:
        float32 [R, g, g], not negative; rows first, on the model's device.

    Raises:
        IndexError: there is no such layer.
    """
    attention = model.fusion.blocks()[layer].cross_attention
    with torch.no_grad():
        vision = model.context(model.encode_images(images))
        text = model.encode_text(ids, mask)
    with torch.enable_grad(), recording(attention) as recorded:
        # of the last layer position 0 alone is computed: no match depends on the others, so their heat is 0
        [states] = model.fuse(vision, [FusionPass(text, mask, None, pooled=True)])
        score = model.match_logits(states)[:, 1].float().sum()
    [probabilities] = recorded  # [R, h, L or 1, 1+N]
    [gradient] = torch.autograd.grad(score, [probabilities])
    with torch.no_grad():
        counted = mask[:, None, : probabilities.shape[2], None]
        heat = (probabilities * gradient.clamp(min=0.0)).float() * counted
        heat = heat[..., 1:].mean(dim=1).sum(dim=1) / mask.shape[1]  # without the global token: [R, N]
        side = round(heat.shape[1] ** 0.5)
        return heat.unflatten(1, (side, side))
