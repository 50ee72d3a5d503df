"""Clips as the mean of their frames' encodings (X2-VLM section 3.1).

Shapes: B clips, T frames, N patches, D vision width.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class FrameMean(nn.Module):
    """Encode each frame as an image, add the frame's embedding, and average over the frames.

    The embedding is added just before the mean, so the result does not depend on the order of the frames; it is kept this way because
    the released weights were trained so.
    """

    def __init__(self, frames: int, width: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.empty(1, frames, 1, width))
        nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(self, clips: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """Encode clips.

        Args:
            clips: [B, T, 3, H, W] normalised, T the configured number of frames.
            encode: images [B*T, 3, H, W] -> tokens [B*T, 1+N, D].

        Returns:
            [B, 1+N, D].
        """
        tokens = encode(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])  # [B, T, 1+N, D]
        return (tokens + self.positions).mean(dim=1)
