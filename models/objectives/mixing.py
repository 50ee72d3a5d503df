"""Images mixed in pairs, as recipes of ImageNet train on them: Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899).

Shapes: R rows, S image side in pixels.
"""

import math

import torch
from torch import Tensor


def mix_images(images: Tensor, mixup: float, cutmix: float) -> tuple[Tensor, float]:
    """Mix each row with the one as far from the other end of the batch; where both ways are on, one of them by the toss of a coin.

    Draws come from PyTorch's CPU generator, which the engine seeds by step and rank; the device is not waited for.

    Args:
        images: [R, 3, S, S] normalised.
        mixup: parameter of the Beta distribution that shares are drawn from; 0: no Mixup.
        cutmix: likewise for the area that is left of a row's own image; 0: no CutMix.

    Returns:
        Mixed images [R, 3, S, S], and the share of its own label that each row keeps; the rest is its partner's, `flip(0)`.
    """
    if not mixup and not cutmix:
        return images, 1.0
    cuts = bool(cutmix) and (not mixup or torch.rand(()).item() < 0.5)
    concentration = torch.tensor(cutmix if cuts else mixup, dtype=torch.float64)
    share = float(torch.distributions.Beta(concentration, concentration).sample())
    if not cuts:
        return images * share + images.flip(0) * (1 - share), share
    size = images.shape[-1]
    side = round(size * math.sqrt(1 - share))
    y, x = (int(torch.randint(0, size, ())) for _ in range(2))
    top, left = (min(max(middle - side // 2, 0), size) for middle in (y, x))
    bottom, right = (min(max(middle + side - side // 2, 0), size) for middle in (y, x))
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images.flip(0)[:, :, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / size**2
