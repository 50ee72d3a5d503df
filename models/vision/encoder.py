"""The contract of vision encoders: images [B, 3, H, W] -> tokens [B, 1+N, D], token 0 the global one.

Shapes: B images, R regions, N patches in raster order, D vision width.
"""

import torch
from torch import Tensor, nn

from models.vision.regions import RegionViews, region_tokens


class VisionEncoder(nn.Module):
    """Base of all vision encoders. Subclasses implement `forward`; those with attention within regions also `encode_regions`."""

    def forward(self, images: Tensor) -> Tensor:
        """Encode normalised images [B, 3, H, W] at the configured size to [B, 1+N, D]."""
        raise NotImplementedError

    def encode_images(self, images: Tensor) -> Tensor:
        """Encode images [B, 3, H, W] of which only the text of the whole image is asked: as `forward`, to [B, 1+K, D], where training with
        patch dropout keeps K of the N patches."""
        return self(images)

    def blocks(self) -> list[nn.Module]:
        """Its transformer blocks, in order: the units that are compiled, recomputed or sharded by themselves."""
        raise NotImplementedError

    def encode_regions(self, images: Tensor, image_index: Tensor, patch_mask: Tensor) -> tuple[Tensor, RegionViews]:
        """Encode images and regions of them.

        Here regions share their image's patch tokens, and a region's global token is the mean of its patches (X-VLM section 3.1).

        Args:
            images: [B, 3, H, W] normalised.
            image_index: [R] which image each region lies in.
            patch_mask: [R, N] True for the patches of the region, at least one in each row.

        Returns:
            Tokens [B, 1+N, D] of the whole images, and the regions.
        """
        tokens = self(images)
        return tokens, self.regions_of(tokens, image_index, patch_mask)

    @staticmethod
    def keep_patches(tokens: Tensor, dropout: float) -> Tensor:
        """The first token and a random part of the others, in their order: [B, 1+N, D] -> [B, 1+K, D]."""
        batch, patches = tokens.shape[0], tokens.shape[1] - 1
        kept = max(1, round(patches * (1 - dropout)))
        order = torch.rand(batch, patches, device=tokens.device).argsort(dim=1)[:, :kept].sort(dim=1).values  # [B, K]
        chosen = tokens[:, 1:].gather(1, order[:, :, None].expand(-1, -1, tokens.shape[2]))
        return torch.cat([tokens[:, :1], chosen], dim=1)

    @staticmethod
    def regions_of(tokens: Tensor, image_index: Tensor, patch_mask: Tensor) -> RegionViews:
        """Regions of encoded images as shared patches under a mask."""
        return RegionViews(region_tokens(tokens, image_index, patch_mask), image_index, patch_mask)
