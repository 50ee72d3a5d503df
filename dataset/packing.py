"""Which texts share a row, so that no padding between them is computed.

Shapes: R texts, L tokens of the longest with its padding, K packed rows of W tokens.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from common.labels import HOLE

MULTIPLE = 8
"""Packed rows are a multiple of this many tokens long: few different shapes, and ones that matrix units like."""
ONE_ROW = 128
"""Texts of at most so many tokens together share one row; more are packed into rows about this long, since tokens of all texts of a row
are compared in its attention."""


def text_bins(lengths: Sequence[int], width: int) -> Tensor:
    """Pack texts into rows, longest first, each into the fullest row that has room.

    Args:
        lengths: tokens of each of the R texts.
        width: L, the padded length of the texts.

    Returns:
        int64 [K, W]: text * L + position of each token, HOLE where there is none.
    """
    total, longest = sum(lengths), max(lengths)
    room = _up(total) if total <= ONE_ROW else max(_up(longest), ONE_ROW)
    bins: list[list[int]] = []
    left: list[int] = []
    for text in sorted(range(len(lengths)), key=lambda text: -lengths[text]):
        fitting = [number for number, free in enumerate(left) if free >= lengths[text]]
        if fitting:
            chosen = min(fitting, key=lambda number: left[number])
        else:
            chosen = len(bins)
            bins.append([])
            left.append(room)
        bins[chosen].append(text)
        left[chosen] -= lengths[text]
    packed = np.full((len(bins), room), HOLE, dtype=np.int64)
    for row, texts in enumerate(bins):
        tokens = np.concatenate([np.arange(lengths[text]) + text * width for text in texts])
        packed[row, : len(tokens)] = tokens
    return torch.from_numpy(packed)


def _up(tokens: int) -> int:
    return -(-tokens // MULTIPLE) * MULTIPLE
