"""Hidden patches for masked image modelling."""

import numpy as np
import pytest

from dataset.config import PatchMaskingConfig
from dataset.patch_masking import PatchSide, hide_patches


@pytest.mark.parametrize("grid", [1, 2, 3, 6, 7, 14, 24])
def test_exactly_the_asked_number_is_hidden_for_every_grid_and_seed(grid: int) -> None:
    count = grid * grid
    for seed in range(60):
        for patches in {1, count // 3 + 1, min(75, count), count}:
            config = PatchMaskingConfig(patches=patches, min_block=1 + seed % 16)
            hidden = hide_patches(grid, config, np.random.default_rng(seed))
            assert hidden.shape == (count,)
            assert hidden.sum() == patches, (grid, seed, patches)


def test_75_of_196_patches_are_hidden_by_default_in_blocks() -> None:
    neighbours = scattered = 0
    for seed in range(100):
        hidden = hide_patches(14, PatchMaskingConfig(), np.random.default_rng(seed)).reshape(14, 14)
        assert hidden.sum() == 75
        lone = np.random.default_rng(seed).permutation(196).reshape(14, 14) < 75
        neighbours += int((hidden[:, 1:] & hidden[:, :-1]).sum())
        scattered += int((lone[:, 1:] & lone[:, :-1]).sum())
    assert neighbours > 1.5 * scattered


def test_every_patch_is_hidden_now_and_then_and_the_generator_decides() -> None:
    side = PatchSide(6, PatchMaskingConfig(patches=14, min_block=4))
    many = side.tensors([np.random.default_rng(seed) for seed in range(200)])["patch_hidden"]
    share = many.float().mean(dim=0)
    assert many.shape == (200, 36)
    assert 0.15 < share.min() < share.max() < 0.75
    assert (side.tensors([np.random.default_rng(3)])["patch_hidden"] == many[3]).all()
