"""Fixed starting values for absolute positions."""

import torch
from torch import Tensor


def sincos_positions(grid: int, width: int) -> Tensor:
    """2D sine-cosine positions of a square grid in raster order (Attention Is All You Need, section 3.5, once for each axis).

    Args:
        grid: patches along one side.
        width: token width, a multiple of 4.

    Returns:
        [grid*grid, width] with values in [-1, 1]: sines and cosines of the row in the first half, of the column in the second.
    """
    quarter = width // 4
    frequencies = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * frequencies  # [grid, width/4]
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)  # [grid, width/2]
    rows = axis[:, None].expand(grid, grid, -1)
    columns = axis[None].expand(grid, grid, -1)
    return torch.cat([rows, columns], dim=2).reshape(grid * grid, width).float()
