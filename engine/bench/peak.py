"""What the device can do at best: the speed of a large matrix product, taken beside what is measured."""

from itertools import pairwise

import torch

from engine.bench.marks import marker_for

SIZES = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the square matrices."""


class MatmulPeak:
    """The best product so far.

    Args:
        device: where to multiply; on the CPU with the threads of the process.
        dtype: of the factors.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.marker = marker_for(device)
        self.size = SIZES[device.type]
        self.name = f"{self.size}x{self.size} {str(dtype).removeprefix('torch.')}"
        self.readings: list[float] = []
        """TFLOP/s, the best of each `probe`."""

    def probe(self, repeats: int = 4) -> None:
        """Multiply a few times now; nothing of it stays in memory."""
        left, right = torch.randn(2, self.size, self.size, device=self.device, dtype=self.dtype)
        result, marks = torch.empty_like(left), []
        for _ in range(repeats + 1):
            marks.append(self.marker.mark())
            torch.mm(left, right, out=result)
        marks.append(self.marker.mark())
        self.marker.wait()
        best = min(self.marker.between(begin, end) for begin, end in pairwise(marks[1:]))  # the first warms up
        self.readings.append(2.0 * self.size**3 / best / 1e12)

    @property
    def tflops(self) -> float:
        """The best of all."""
        return max(self.readings)
