"""Swin behind the vision contract: images [B, 3, H, W] -> tokens [B, 1+N, D], token 0 the mean of the others (X-VLM section 3.1).

Shapes: B images, N tokens of the last stage in raster order, D its width.
"""

import torch
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from torch import Tensor, nn

from models.config import SwinConfig
from models.vision.encoder import VisionEncoder


class Swin(VisionEncoder):
    """timm's Swin without its classifier."""

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        self.backbone = SwinTransformer(
            img_size=config.image_size,
            patch_size=config.patch_size,
            num_classes=0,
            global_pool="",
            embed_dim=config.embed_dim,
            depths=config.depths,
            num_heads=config.heads,
            window_size=config.window,
            mlp_ratio=config.mlp_ratio,
            drop_path_rate=config.drop_path,
        )

    def forward(self, images: Tensor) -> Tensor:
        """Encode normalised images [B, 3, H, W] at the configured size to [B, 1+N, D]."""
        tokens = self.backbone.forward_features(images).flatten(1, 2)  # [B, g, g, D] -> [B, N, D]
        return torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)

    def blocks(self) -> list[nn.Module]:
        """See `VisionEncoder`."""
        return [module for module in self.backbone.modules() if isinstance(module, SwinTransformerBlock)]
