"""Fixed starting values for absolute positions."""

import math

import torch
from torch import Tensor


def sincos_positions(grid: int, width: int) -> Tensor:
    """2D sine-cosine positions of a square grid in raster order, half of the channels for each axis.

    The waves fit the grid: the shortest is two patches long, the longest about four grids. With the wavelengths that are usual for
    sentences (up to 10,000) most channels would hardly change over a small grid.

    Args:
        grid: patches along one side.
        width: token width, a multiple of 4.

    Returns:
        [grid*grid, width] with values in [-1, 1]: sines and cosines of the row in the first half, of the column in the second.
    """
    quarter = width // 4
    frequencies = math.pi * (2.0 * grid) ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * frequencies  # [grid, width/4]
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)  # [grid, width/2]
    rows = axis[:, None].expand(grid, grid, -1)
    columns = axis[None].expand(grid, grid, -1)
    return torch.cat([rows, columns], dim=2).reshape(grid * grid, width).float()


def sincos_sequence(length: int, width: int) -> Tensor:
    """Sine-cosine positions of a sequence, with waves that fit it: the shortest two places long, the longest about four sequences.

    Args:
        length: number of places.
        width: of a position, even.

    Returns:
        [length, width] with values in [-1, 1].
    """
    half = width // 2
    frequencies = math.pi * (2.0 * length) ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies  # [length, width/2]
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()
