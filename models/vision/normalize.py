"""Pixel values as every encoder here expects them."""

from functools import lru_cache

import torch
from torch import Tensor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def normalize_images(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn bytes into normalised pixels, on the device of the images, so that loaders move a quarter of the data.

    Args:
        images: [..., 3, H, W] uint8 in RGB, or already normalised floating point (returned as it is).
        dtype: of the result.

    Returns:
        [..., 3, H, W]: (x/255 - mean) / std with CLIP's mean and standard deviation.
    """
    if images.is_floating_point():
        return images
    mean, std = _mean_and_std(dtype, images.device)
    return (images.to(dtype) - mean) / std


@lru_cache(maxsize=8)
def _mean_and_std(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """[3, 1, 1] each, of bytes; kept, since to copy them to a device is to wait for it."""
    mean, std = (torch.tensor(values, dtype=dtype, device=device)[:, None, None] * 255 for values in (CLIP_MEAN, CLIP_STD))
    return mean, std
