"""Block-wise masking of an image's patches (BEiT, arXiv 2106.08254, algorithm 1), with an exact number of hidden patches.

Shapes: B images, N patches, in raster order.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dataset.config import PatchMaskingConfig

TRIES = 10
"""Draws of a block that must fit and hide something new; then single patches make up the number."""


class PatchSide:
    """Turns images into what masked image modelling hides of them.

    Args:
        grid: patches along one side of an image.
        config: which are hidden.
    """

    def __init__(self, grid: int, config: PatchMaskingConfig) -> None:
        self.grid = grid
        self.config = config

    def tensors(self, rngs: Sequence[np.random.Generator]) -> dict[str, Tensor]:
        """patch_hidden bool [B, N], True for hidden patches, of images with these generators."""
        return {"patch_hidden": torch.from_numpy(np.stack([hide_patches(self.grid, self.config, rng) for rng in rngs]))}


def hide_patches(grid: int, config: PatchMaskingConfig, rng: np.random.Generator) -> np.ndarray:
    """Choose the patches to hide: rectangles, until the wanted number is reached.

    Args:
        grid: patches along one side of the image.
        config: how many, and of what form blocks are; no more than grid * grid.
        rng: the sample's generator.

    Returns:
        bool [N], True for hidden patches; exactly `config.patches` of them.
    """
    hidden = np.zeros((grid, grid), dtype=bool)
    while (missing := config.patches - int(hidden.sum())) > 0:
        block = _block(hidden, missing, config, rng)
        if block is None:
            break
        hidden[block] = True
    flat = hidden.reshape(-1)
    if missing > 0:  # no block fits any more
        flat[rng.permutation(np.flatnonzero(~flat))[:missing]] = True
    return flat


def _block(hidden: np.ndarray, missing: int, config: PatchMaskingConfig, rng: np.random.Generator) -> tuple[slice, slice] | None:
    """A rectangle that hides at least one and at most `missing` patches more; None where ten draws find none."""
    grid, span = len(hidden), -math.log(config.min_aspect)
    for _ in range(TRIES):
        area = rng.uniform(min(config.min_block, missing), missing)
        aspect = math.exp(rng.uniform(-span, span))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if not (0 < height <= grid and 0 < width <= grid):
            continue
        top, left = int(rng.integers(grid - height + 1)), int(rng.integers(grid - width + 1))
        block = slice(top, top + height), slice(left, left + width)
        if 0 < height * width - int(hidden[block].sum()) <= missing:
            return block
    return None
