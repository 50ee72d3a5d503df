"""Texts without their padding: laid end to end, computed, and put back.

Shapes: R texts, L tokens of the longest with its padding, K packed rows of W tokens, T = K*W, M rows, H width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from common.labels import HOLE


class Rows(NamedTuple):
    """Where the tokens of M rows of L stand in a flat list of T."""

    number: int
    """M"""
    length: int
    """L"""
    places: Tensor | None = None
    """[T] row * L + position of each token, M * L where it is none; None: the list holds every position."""

    def flat(self, padded: Tensor) -> Tensor:
        """[M, L, H] -> [T, H]"""
        whole = padded.flatten(0, 1)
        return whole if self.places is None else whole.index_select(0, self.places.clamp(max=len(whole) - 1))

    def padded(self, flat: Tensor) -> Tensor:
        """[T, H] -> [M, L, H], zeros where there is no token"""
        if self.places is None:
            return flat.unflatten(0, (self.number, self.length))
        whole = flat.new_zeros(self.number * self.length + 1, flat.shape[1]).index_copy(0, self.places, flat)
        return whole[:-1].unflatten(0, (self.number, self.length))


@dataclass(frozen=True)
class Packing:
    """Where R texts of at most L tokens stand in K rows of W."""

    bins: Tensor
    """[K, W] text * L + position of each token; HOLE where there is none."""
    count: int
    """R"""
    length: int
    """L"""

    @classmethod
    def of(cls, mask: Tensor) -> "Packing":
        """All tokens of a mask [R, L] in one row. Waits for a device that is not the CPU."""
        return cls(mask.flatten().nonzero().T, *mask.shape)

    def times(self, number: int) -> "Packing":
        """The same for so many lists of R texts, one after the other."""
        shifts = torch.arange(number, device=self.bins.device)[:, None, None] * (self.count * self.length)
        bins = torch.where(self.bins == HOLE, HOLE, self.bins + shifts).flatten(0, 1)
        return Packing(bins, number * self.count, self.length)

    @classmethod
    def joined(cls, parts: Sequence["Packing"], length: int) -> "Packing":
        """Those of several lists of texts, one after the other, all padded to `length`."""
        first, width, rows = 0, max(part.bins.shape[1] for part in parts), []
        for part in parts:
            moved = (part.bins // part.length + first) * length + part.bins % part.length
            rows.append(F.pad(torch.where(part.bins == HOLE, HOLE, moved), (0, width - part.bins.shape[1]), value=HOLE))
            first += part.count
        return cls(torch.cat(rows), first, length)

    def places(self, first: int, total: int) -> Tensor:
        """[T] as in `Rows`, where these texts are rows `first` and following of `total`."""
        flat = self.bins.flatten()
        return torch.where(flat == HOLE, total * self.length, flat + first * self.length)

    def pack(self, ids: Tensor) -> Tensor:
        """[R, L] -> [K, W]; holes get the first token of all, which nothing attends to."""
        return ids.flatten()[self.bins.clamp(min=0)]

    def unpack(self, states: Tensor) -> Tensor:
        """[K, W, H] -> [R, L, H], zeros where there is no token."""
        return Rows(self.count, self.length, self.places(0, self.count)).padded(states.flatten(0, 1))

    def positions(self) -> Tensor:
        """[K, W] position of each token in its text."""
        return self.bins.clamp(min=0) % self.length

    def visible(self) -> Tensor:
        """[K, W, W] True between tokens of one text; holes see one another, so that no row of attention is empty."""
        text = torch.where(self.bins == HOLE, HOLE, self.bins // self.length)
        return text[:, :, None] == text[:, None]
