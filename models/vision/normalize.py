"""Pixel values as every encoder here expects them."""

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
PixelStatistics = Literal["clip", "imagenet", "half"]
"""Mean and standard deviation that pixels are normalised with: CLIP's, as in all pre-training here; ImageNet's; or 0.5 and 0.5."""
STATISTICS: dict[PixelStatistics, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "clip": (CLIP_MEAN, CLIP_STD),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def normalize_images(images: Tensor, dtype: torch.dtype, statistics: PixelStatistics = "clip") -> Tensor:
    """Turn bytes into normalised pixels, on the device of the images, so that loaders move a quarter of the data.

    Args:
        images: [..., 3, H, W] uint8 in RGB, or already normalised floating point (returned as it is).
        dtype: of the result.
        statistics: which mean and standard deviation.

    Returns:
        [..., 3, H, W]: (x/255 - mean) / std.
    """
    if images.is_floating_point():
        return images
    mean, std = _mean_and_std(dtype, images.device, statistics)
    return (images.to(dtype) - mean) / std


@lru_cache(maxsize=16)
def _mean_and_std(dtype: torch.dtype, device: torch.device, statistics: PixelStatistics) -> tuple[Tensor, Tensor]:
    """[3, 1, 1] each, of bytes; kept, since to copy them to a device is to wait for it."""
    mean, std = (torch.tensor(values, dtype=dtype, device=device)[:, None, None] * 255 for values in STATISTICS[statistics])
    return mean, std
