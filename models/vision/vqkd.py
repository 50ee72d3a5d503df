"""VQ-KD, the visual tokenizer of BEiT-2 (arXiv 2208.06366, section 2.2), as far as it names the code of each patch.

Shapes: B images, N patches, K codes, C code width.
"""

import torch
from timm.layers.norm import LayerNorm
from timm.models.beit import Beit
from torch import Tensor, nn

from models.config import VisualTokenizerConfig
from models.vision.normalize import CLIP_MEAN, CLIP_STD


class VisualTokenizer(nn.Module):
    """A vision transformer whose patch tokens are projected and replaced by the nearest entry of a codebook. Frozen.

    Args:
        config: its size.
        image_size: side of the square images in pixels.
        patch_size: side of a patch in pixels; the patches are those of the encoder that learns to predict the codes.
    """

    def __init__(self, config: VisualTokenizerConfig, image_size: int, patch_size: int) -> None:
        super().__init__()
        self.normalised_input = config.normalised_input
        self.encoder = Beit(
            img_size=image_size,
            patch_size=patch_size,
            num_classes=0,
            embed_dim=config.width,
            depth=config.depth,
            num_heads=config.heads,
            norm_layer=LayerNorm,  # eps 1e-6
        )
        self.projection = nn.Sequential(nn.Linear(config.width, config.width), nn.Tanh(), nn.Linear(config.width, config.code_width))
        self.codebook = nn.Parameter(torch.nn.functional.normalize(torch.randn(config.codes, config.code_width), dim=-1))
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """The code of each patch, [B, N] int64, of images [B, 3, H, W] normalised as for every encoder here."""
        patches = self.encoder.fc_norm(self.encoder.forward_features(self._pixels(images))[:, 1:])
        with torch.autocast(images.device.type, enabled=False):  # half precision would confuse codes that are close
            codebook = self.codebook
            states = nn.functional.normalize(self.projection(patches.to(codebook.dtype)), dim=-1)  # [B, N, C]
            # |s - c|^2 without |s|^2, which is the same for all codes
            return (codebook.square().sum(dim=1) - 2 * states @ codebook.T).argmin(dim=-1)

    def _pixels(self, images: Tensor) -> Tensor:
        """Pixels from -1 to 1, as VQ-KD was trained; or what X-FM's code makes of normalised images, which it takes for bytes."""
        if self.normalised_input:
            return images * torch.where(images.max() <= 1, 255.0, 1.0) / 127.5 - 1
        mean, std = (torch.tensor(values, dtype=images.dtype, device=images.device)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
        return (images * std + mean) * 2 - 1
