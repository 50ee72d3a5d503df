"""CLIP's vision transformer behind the vision contract (X-VLM section 3.1): token 0 is its class token.

Shapes: B images, R regions, N patches in raster order, P = 1+N tokens, D vision width.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModel

from models.config import ClipVitConfig
from models.vision.encoder import VisionEncoder
from models.vision.regions import RegionViews


def clip_config(config: ClipVitConfig) -> CLIPVisionConfig:
    """The transformers configuration of an encoder of this size."""
    return CLIPVisionConfig(
        image_size=config.image_size,
        patch_size=config.patch_size,
        hidden_size=config.width,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
        intermediate_size=config.intermediate,
        hidden_act="quick_gelu",
        layer_norm_eps=1e-5,
        attention_dropout=0.0,
        attn_implementation="sdpa",  # pyright: ignore[reportCallIssue]  (a documented argument that the class takes by name only)
    )


class ClipVit(VisionEncoder):
    """transformers' CLIP vision tower, its layers called one by one so that the last ones can work within regions.

    The library normalises the class token alone at the end; the official code normalises all tokens, and so does this.
    """

    def __init__(self, config: ClipVitConfig) -> None:
        super().__init__()
        tower = CLIPVisionModel(clip_config(config))
        # Some releases of the library wrap the tower once more; the names of our tensors must not depend on that.
        self.backbone = cast(nn.Module, getattr(tower, "vision_model", tower))
        self.local_depth = config.local_depth
        self.patch_dropout = config.patch_dropout

    def forward(self, images: Tensor) -> Tensor:
        """Encode normalised images [B, 3, H, W] at the configured size to [B, 1+N, D]."""
        return self._norm(self._whole(self._embed(images)))

    def encode_images(self, images: Tensor) -> Tensor:
        """See `VisionEncoder`."""
        if not (self.training and self.patch_dropout):
            return self(images)
        return self._norm(self._whole(self.keep_patches(self._embed(images), self.patch_dropout)))

    def encode_regions(self, images: Tensor, image_index: Tensor, patch_mask: Tensor) -> tuple[Tensor, RegionViews]:
        """Encode images and regions of them; the last `local_depth` layers see nothing outside a region but the class token.

        Whole images and regions share the first layers, which see each image once. Arguments and result as `VisionEncoder.encode_regions`,
        the regions with patch tokens of their own.
        """
        images_count, layers = images.shape[0], self.blocks()
        states = self._embed(images)
        for layer in layers[: -self.local_depth]:
            states = layer(states, None)
        states = torch.cat([states, states[image_index]])  # [B+R, P, D]
        visible = F.pad(torch.cat([patch_mask.new_ones(images_count, patch_mask.shape[1]), patch_mask]), (1, 0), value=True)
        mask = visible[:, None, None, :].expand(-1, 1, visible.shape[1], -1)  # [B+R, 1, P, P]
        for layer in layers[-self.local_depth :]:
            states = layer(states, mask)
        whole, regions = self._norm(states).split([images_count, len(image_index)])
        return whole, RegionViews(regions[:, 0], image_index, patch_mask, regions[:, 1:])

    def _whole(self, states: Tensor) -> Tensor:
        """All layers over whole images, [B, P, D]."""
        for layer in self.blocks():
            states = layer(states, None)
        return states

    def _embed(self, images: Tensor) -> Tensor:
        """Patches with class token and positions, normalised: [B, P, D]. (`pre_layrnorm` is CLIP's own spelling.)"""
        return self.backbone.get_submodule("pre_layrnorm")(self.backbone.get_submodule("embeddings")(images))

    def blocks(self) -> list[nn.Module]:
        """See `VisionEncoder`."""
        return list(cast(nn.ModuleList, self.backbone.get_submodule("encoder.layers")))

    def _norm(self, states: Tensor) -> Tensor:
        return self.backbone.get_submodule("post_layernorm")(states)
