"""What image classification does to pictures besides cropping and mirroring them."""

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from common.compat import ensure_torchvision
from dataset.config import AugmentationConfig, ClassAugmentation
from dataset.transforms import Picture, augment_image

GREY = 124
"""What operations of a policy fill with: about the mean of ImageNet's pixels."""
DEVIATION = 58.0
"""Of ImageNet's pixels, in grey levels: how far erased pixels scatter around the mean."""
ERASED_SHARE = (0.02, 1 / 3)
ERASED_RATIO = (0.3, 1 / 0.3)


def augment_for_classes(
    image: Picture, size: int, config: AugmentationConfig, rng: np.random.Generator, may_flip: bool = True
) -> np.ndarray:
    """As `augment_image`, then the policy and the erasing of `ClassAugmentation`: uint8 [size, size, 3]."""
    pixels = augment_image(image, size, config, rng, may_flip)
    if not isinstance(config, ClassAugmentation):
        return pixels
    if config.auto_augment is not None:
        with _library_draws(rng):
            pixels = np.asarray(_policy(config.auto_augment, size)(Image.fromarray(pixels)))
    return erase(pixels, rng) if config.erase and rng.random() < config.erase else pixels


def erase(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fill a random rectangle with noise (arXiv 1708.04896, its variant of a value a pixel): 2 to 33 % of the area, at most 3.3 times as
    long as wide. uint8 [S, S, 3] to the same."""
    size = pixels.shape[0]
    for _ in range(10):
        area = rng.uniform(*ERASED_SHARE) * size * size
        ratio = math.exp(rng.uniform(math.log(ERASED_RATIO[0]), math.log(ERASED_RATIO[1])))
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < height < size and 0 < width < size:
            top, left = int(rng.integers(size - height + 1)), int(rng.integers(size - width + 1))
            noise = rng.normal(GREY, DEVIATION, (height, width, 3))
            pixels = pixels.copy()
            pixels[top : top + height, left : left + width] = noise.clip(0, 255).astype(np.uint8)
            break
    return pixels


def middle(image: Image.Image, size: int, share: float) -> np.ndarray:
    """Resize so that `share` of the shorter side is `size` pixels, and cut out the middle: uint8 [size, size, 3]."""
    shorter = round(size / share)
    factor = shorter / min(image.size)
    width, height = (max(shorter, round(side * factor)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


@lru_cache(maxsize=4)
def _policy(name: str, size: int) -> Any:
    ensure_torchvision()
    from timm.data.auto_augment import rand_augment_transform

    return rand_augment_transform(name, {"translate_const": int(size * 0.45), "img_mean": (GREY,) * 3})


@contextmanager
def _library_draws(rng: np.random.Generator) -> Iterator[None]:
    """timm draws from the process's own generators: seed them from the sample's, and put them back."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(int(rng.integers(2**32)))
    np.random.seed(int(rng.integers(2**32)))  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
