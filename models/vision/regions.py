"""Regions of an image as masked views of its one encoding (X-VLM section 3.1, X2-VLM section 3.1).

Shapes: B images, R regions, N patches, D vision width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RegionViews:
    """Regions that text rows may attend to instead of whole images."""

    tokens: Tensor
    """[R, D] global tokens."""
    image_index: Tensor
    """[R] the image of each region."""
    patch_mask: Tensor
    """[R, N] True for the patches of the region."""
    patches: Tensor | None = None
    """[R, N, D] patch tokens of each region, from encoders with attention within regions; None: regions share their image's."""


def region_tokens(tokens: Tensor, image_index: Tensor, patch_mask: Tensor) -> Tensor:
    """Global token of each region: the mean of its patches' tokens.

    The image is encoded once with full attention; a region is an index and a mask, so patch tokens are not copied per region.

    Args:
        tokens: [B, 1+N, D] of the whole images.
        image_index: [R] which image each region lies in.
        patch_mask: [R, N] True for the patches of the region, at least one in each row.

    Returns:
        [R, D].
    """
    weights = patch_mask.to(tokens.dtype)
    weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1.0)
    images, patches = tokens.shape[0], tokens.shape[1] - 1
    # One product over all images' patches: each region's weights stand in its own image's columns and are zero elsewhere.
    spread = torch.zeros(weights.shape[0], images, patches, dtype=weights.dtype, device=weights.device)
    spread.scatter_(1, image_index[:, None, None].expand(-1, 1, patches), weights[:, None])
    return spread.flatten(1) @ tokens[:, 1:].reshape(images * patches, -1)
