"""Position tables for another resolution than a file was trained at.

Relative tables of BEiT-2, and of Swin in X-VLM and CCLM, are resampled as BEiT does it: source positions are spread in a geometric
progression, dense around the centre where attention is local, and a cubic spline is read off at whole steps. Swin in X2-VLM's repository
and all absolute positions are resized as pictures, bicubically.

Shapes: h heads, S source positions along one axis (odd), T target positions, D width, F frames.
"""

import math
import re
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from common.errors import UserError
from models.config import Beit2Config, ClipVitConfig, SwinConfig, VisionConfig

TableMethod = Literal["spline", "bicubic"]
"""How relative tables of Swin are resized: `spline` by X-VLM and CCLM, `bicubic` by X2-VLM's repository. BEiT's is always `spline`."""

BACKBONE = "vision.backbone."
FRAMES = "frames.positions"
TABLE = "relative_position_bias_table"
BEIT_EXTRA_ROWS = 3
"""Rows at the end of BEiT's tables: class token to patch, patch to class token, class token to itself."""


def fit_positions(
    tensors: Mapping[str, Tensor], target: VisionConfig, method: TableMethod = "spline", prefix: str = BACKBONE
) -> dict[str, Tensor]:
    """Fit the position tables of a file to an encoder for another resolution or window.

    Args:
        tensors: under our names, of an encoder of the same kind.
        target: the encoder of the model.
        method: for relative tables of Swin.
        prefix: before the encoder's names.

    Returns:
        The same tensors; those that fit already are the same objects.

    Raises:
        UserError: a table belongs to no square grid.
    """
    return {
        name: _resize(name.removeprefix(prefix), tensor, target, method) if name.startswith(prefix) else tensor
        for name, tensor in tensors.items()
    }


def _resize(name: str, tensor: Tensor, target: VisionConfig, method: TableMethod) -> Tensor:
    """One tensor of an encoder, under the library's name."""
    match target:
        case Beit2Config() if name.endswith(TABLE):
            return resize_beit_table(tensor, target.grid)
        case Beit2Config() if name == "pos_embed":
            return resize_absolute(tensor, target.grid)
        case SwinConfig() if name.endswith(TABLE):
            return resize_swin_table(tensor, swin_window(target, int(re.findall(r"\d+", name)[0])), method)
        case ClipVitConfig() if name == "embeddings.position_embedding.weight":
            return resize_absolute(tensor[None], target.grid)[0]
        case _:
            return tensor


def swin_window(config: SwinConfig, stage: int) -> int:
    """Side of the windows of a stage: a stage that is smaller than the window is one window."""
    return min(config.window, config.image_size // (config.patch_size * 2**stage))


def resize_beit_table(table: Tensor, grid: int) -> Tensor:
    """BEiT's relative table [S*S + 3, h] for a grid of `grid` patches a side: [T*T + 3, h] with T = 2 * grid - 1."""
    positions, extra = table[:-BEIT_EXTRA_ROWS], table[-BEIT_EXTRA_ROWS:]
    resized = resample_table(positions, 2 * grid - 1)
    return table if resized is positions else torch.cat([resized, extra])


def resize_swin_table(table: Tensor, window: int, method: TableMethod = "spline") -> Tensor:
    """Swin's relative table [S*S, h] for windows of `window` tokens a side: [T*T, h] with T = 2 * window - 1."""
    side, wanted = math.isqrt(table.shape[0]), 2 * window - 1
    if side == wanted or method == "spline":
        return resample_table(table, wanted)
    picture = table.T.reshape(1, -1, side, side)
    return F.interpolate(picture, size=(wanted, wanted), mode="bicubic", align_corners=False).reshape(-1, wanted * wanted).T.contiguous()


def resize_absolute(positions: Tensor, grid: int) -> Tensor:
    """Absolute positions [1, 1+N, D] for a grid of `grid` patches a side, bicubically; the class token's row is kept."""
    token, patches = positions[:, :1], positions[:, 1:]
    side = math.isqrt(patches.shape[1])
    if side == grid:
        return positions
    picture = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(picture, size=(grid, grid), mode="bicubic", align_corners=False)
    return torch.cat([token, resized.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def resize_frames(positions: Tensor, initial: Tensor) -> Tensor:
    """Embeddings of frames [1, F, 1, D] for another number of frames: the first ones are taken, more stay as in `initial`."""
    if positions.shape == initial.shape:
        return positions
    kept = min(positions.shape[1], initial.shape[1])
    return torch.cat([positions[:, :kept], initial[:, kept:].to(positions)], dim=1)


def resample_table(table: Tensor, wanted: int) -> Tensor:
    """Resample a square relative table by BEiT's method.

    Args:
        table: [S*S, h], row-major.
        wanted: T, odd.

    Returns:
        [T*T, h]; the table itself where it has that size.
    """
    side = math.isqrt(table.shape[0])
    if side**2 != table.shape[0] or side % 2 == 0:
        raise UserError(f"A table of relative positions with {table.shape[0]} rows belongs to no square grid and cannot be resized.")
    if side == wanted:
        return table
    half = wanted // 2
    targets = torch.arange(-half, half + 1, dtype=torch.float64)
    weights = spline_weights(torch.tensor(geometric_positions(side, wanted), dtype=torch.float64), targets)  # [T, S]
    heads = table.double().T.reshape(-1, side, side)
    return (weights @ heads @ weights.T).flatten(1).T.to(table.dtype).contiguous()


def geometric_positions(side: int, wanted: int) -> list[float]:
    """Where the S = `side` source positions lie on an axis with `wanted` whole steps: 0 in the centre, then 1, 1+q, 1+q+q*q ...

    The ratio q is found by bisection between 1.01 and 1.5 so that the outermost position meets the outermost step; it is the last midpoint,
    as in the official code. Smaller targets end at the lower bound.
    """
    low, high, ratio = 1.01, 1.5, 1.0
    while high - low > 1e-6:
        ratio = (low + high) / 2.0
        if (1.0 - ratio ** (side // 2)) / (1.0 - ratio) > wanted // 2:
            high = ratio
        else:
            low = ratio
    distances, distance = [], 1.0
    for step in range(side // 2):
        distances.append(distance)
        distance += ratio ** (step + 1)
    return [-distance for distance in reversed(distances)] + [0.0] + distances


def spline_weights(points: Tensor, targets: Tensor) -> Tensor:
    """The matrix [T, S] that interpolates values at `points` [S] (ascending) at `targets` [T] by a cubic spline.

    It is the spline through all points without knots at the second and the last but one ("not a knot"), which FITPACK computes for the
    official code; targets beyond the points are taken at the border. Fewer than four points have a polynomial through them.
    """
    degree = min(3, len(points) - 1)
    inner = points[(degree + 1) // 2 : len(points) - (degree + 1) // 2] if len(points) > degree + 1 else points[:0]
    knots = torch.cat([points[:1].expand(degree + 1), inner, points[-1:].expand(degree + 1)])
    clamped = targets.clamp(float(points[0]), float(points[-1]))
    return torch.linalg.solve(_spline_basis(knots, points, degree).T, _spline_basis(knots, clamped, degree).T).T


def _spline_basis(knots: Tensor, places: Tensor, degree: int) -> Tensor:
    """Values [places, len(knots) - degree - 1] of the B-splines over these knots, by the Cox-de Boor recursion."""
    last = len(knots) - degree - 2  # the interval before the right border, which also holds the border itself
    interval = (torch.searchsorted(knots, places, right=True) - 1).clamp(degree, max(last, degree))
    values = F.one_hot(interval, len(knots) - 1).to(places.dtype)
    for order in range(1, degree + 1):
        left, right = knots[: -order - 1], knots[order + 1 :]
        rising = (places[:, None] - left) / _no_zero(knots[order:-1] - left) * values[:, :-1]
        falling = (right - places[:, None]) / _no_zero(right - knots[1:-order]) * values[:, 1:]
        values = rising + falling
    return values


def _no_zero(lengths: Tensor) -> Tensor:
    """Knots that coincide span nothing, and their splines are 0 there: any divisor will do."""
    return lengths.masked_fill(lengths == 0, 1.0)
