"""BEiT-2 behind the vision contract: images [B, 3, H, W] -> tokens [B, 1+N, D], token 0 the global one.

Shapes: B images, N patches in raster order, D vision width.
"""

import torch
from timm.layers.norm import LayerNorm
from timm.models.beit import Beit
from torch import Tensor, nn

from models.config import Beit2Config
from models.vision.encoder import VisionEncoder
from models.vision.positions import sincos_positions

MASK_TOKEN = "mask_token"


class Beit2(VisionEncoder):
    """timm's BEiT with X2-VLM's reading of its output (arXiv 2211.12402, section 3.1).

    The patch tokens pass the final norm and their mean is the global token; the learned class token takes part in the attention and
    is then dropped.

    Args:
        config: its size.
        hides_patches: whether it has a mask token, to see images with hidden patches.
    """

    def __init__(self, config: Beit2Config, hides_patches: bool = False) -> None:
        super().__init__()
        self.patch_dropout = config.patch_dropout
        self.backbone = Beit(
            img_size=config.image_size,
            patch_size=config.patch_size,
            num_classes=0,
            embed_dim=config.width,
            depth=config.depth,
            num_heads=config.heads,
            mlp_ratio=config.mlp_ratio,
            init_values=config.layer_scale,
            drop_path_rate=config.drop_path,
            norm_layer=LayerNorm,  # eps 1e-6
            use_rel_pos_bias=config.positions != "absolute",
            use_abs_pos_emb=config.positions != "relative",
        )
        if self.backbone.pos_embed is not None:
            with torch.no_grad():
                self.backbone.pos_embed[0, 0].zero_()
                self.backbone.pos_embed[0, 1:] = sincos_positions(config.grid, config.width) * config.position_amplitude
        if hides_patches:  # in the backbone, because BEiT-2's own files have it there
            self.backbone.register_parameter(MASK_TOKEN, nn.Parameter(torch.empty(1, 1, config.width)))
            nn.init.trunc_normal_(self.backbone.get_parameter(MASK_TOKEN), std=0.02)

    def forward(self, images: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Encode normalised images.

        Args:
            images: [B, 3, H, W] at the configured size.
            hidden: [B, N] True for patches that the encoder must not see.

        Returns:
            [B, 1+N, D]: the mean of the patch tokens, then the patch tokens.
        """
        features = self.backbone.forward_features(images) if hidden is None else self._blocks(self._embed(images, hidden))
        return self._read(features)

    def encode_images(self, images: Tensor) -> Tensor:
        """See `VisionEncoder`."""
        if not (self.training and self.patch_dropout):
            return self(images)
        return self._read(self._blocks(self.keep_patches(self._embed(images), self.patch_dropout)))

    def blocks(self) -> list[nn.Module]:
        """See `VisionEncoder`."""
        return list(self.backbone.blocks)

    def _embed(self, images: Tensor, hidden: Tensor | None = None) -> Tensor:
        """What enters timm's blocks, [B, 1+N, D], with the mask token in place of hidden patches [B, N]."""
        backbone = self.backbone
        patches = backbone.patch_embed(images)
        if hidden is not None:
            patches = torch.where(hidden[:, :, None], backbone.get_parameter(MASK_TOKEN).to(patches.dtype), patches)
        tokens = torch.cat([backbone.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        return tokens if backbone.pos_embed is None else tokens + backbone.pos_embed

    def _blocks(self, tokens: Tensor) -> Tensor:
        for block in self.backbone.blocks:
            tokens = block(tokens)
        return tokens

    def _read(self, features: Tensor) -> Tensor:
        """The mean of the normalised patches and the patches, [B, 1+N, D]."""
        patches = self.backbone.fc_norm(features[:, 1:])  # [B, N, D]
        return torch.cat([patches.mean(dim=1, keepdim=True), patches], dim=1)
