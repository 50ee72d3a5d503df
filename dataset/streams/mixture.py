"""A noisy stream and a cleaner one of the same kind that take turns, step by step (X2-VLM section 4.1)."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from dataset.order import sample_rng
from dataset.streams.base import Sample, Stream

GROWTH = 4096
"""Steps drawn at once at least."""


class Mixture:
    """To the loader two streams, of which each step takes one; to all others the noisy one.

    Args:
        noisy, clean: with the same batches.
        probability: share of the steps that take the clean one.
    """

    def __init__(self, noisy: Stream, clean: Stream, probability: float) -> None:
        self.noisy, self.clean = noisy, clean
        self.probability = probability
        self.name, self.groups = noisy.name, noisy.groups
        self.images_per_batch, self.rows_per_batch = noisy.images_per_batch, noisy.rows_per_batch

    def __len__(self) -> int:
        return len(self.noisy)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Of the noisy stream."""
        return self.noisy.sample(index, rng)

    def collate(self, groups: list[list[Sample]], rngs: list[np.random.Generator]) -> dict[str, Tensor]:
        """The same of both."""
        return self.noisy.collate(groups, rngs)


class Turns:
    """Which steps take the clean data: a function of seed, name and step, on all ranks and workers the same.

    Args:
        seed: of the run.
        name: of the stream.
        probability: share of clean steps.
    """

    def __init__(self, seed: int, name: str, probability: float) -> None:
        self._rng = sample_rng(seed, f"{name}/mixture", 0)
        self._probability = probability
        self._before = np.zeros(1, dtype=np.int64)  # [steps + 1] clean steps before each

    def clean(self, step: int) -> bool:
        """Whether a step, counted from 0, takes the clean data."""
        return self._count(step + 1) > self._count(step)

    def turn(self, step: int) -> int:
        """How many earlier steps took the same data as this one, so that neither source leaves records out."""
        count = self._count(step)
        return count if self.clean(step) else step - count

    def _count(self, step: int) -> int:
        if step >= len(self._before):
            drawn = self._rng.random(max(GROWTH, step + 1 - len(self._before))) < self._probability
            self._before = np.concatenate([self._before, self._before[-1] + np.cumsum(drawn)])
        return int(self._before[step])
