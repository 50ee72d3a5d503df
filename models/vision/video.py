"""Clips as the mean of their frames' encodings (X2-VLM section 3.1), with or without a look at the order of the frames.

Shapes: B clips, T frames, P = 1+N tokens of a frame, D vision width, h heads, d = D/h.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.attention import Attention
from models.config import VisionSettings
from models.vision.positions import sincos_sequence

EPSILON = 1e-6
"""Of the layer norms, as in BEiT-2."""
CHANNELS_PER_HEAD = 64


class FrameMean(nn.Module):
    """Encode each frame as an image, add the frame's embedding, and average over the frames.

    The embedding is added just before the mean, so it moves all clips by the same constant, and the result does not depend on the order of
    the frames: a clip and the same clip played backwards are one to the model. It is kept this way because the released weights were
    trained so. With `vision.temporal: attention` a `TemporalBlock` between the two tells the order.
    """

    def __init__(self, config: VisionSettings) -> None:
        super().__init__()
        assert config.frames is not None, "the caller looks"
        self.positions = nn.Parameter(torch.empty(1, config.frames, 1, config.width))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.temporal = TemporalBlock(config.frames, config.width) if config.temporal == "attention" else None

    def forward(self, clips: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """Encode clips.

        Args:
            clips: [B, T, 3, H, W] normalised, T the configured number of frames.
            encode: images [B*T, 3, H, W] -> tokens [B*T, P, D].

        Returns:
            [B, P, D].

        Raises:
            ValueError: the clips have another number of frames.
        """
        if clips.shape[1] != self.positions.shape[1]:
            raise ValueError(f"clips of {clips.shape[1]} frames; model.vision.frames is {self.positions.shape[1]}")
        tokens = encode(clips.flatten(0, 1)).unflatten(0, clips.shape[:2]) + self.positions  # [B, T, P, D]
        if self.temporal is not None:
            tokens = self.temporal(tokens)
        return tokens.mean(dim=1)


class TemporalBlock(nn.Module):
    """One transformer block over time: a token attends to the tokens at its own place in all frames (divided attention over time alone, as
    in TimeSformer, arXiv 2102.05095), each told apart by an embedding of its time, before the frames are averaged.

    Both branches end in matrices that start at zero, so a new block changes nothing: a model with it starts as the released weights are.
    """

    def __init__(self, frames: int, width: int) -> None:
        super().__init__()
        self.times = nn.Parameter(sincos_sequence(frames, width)[None, :, None])  # [1, T, 1, D], as large as normalised tokens
        self.attention_norm = nn.LayerNorm(width, eps=EPSILON)
        heads = next(count for count in range(max(1, width // CHANNELS_PER_HEAD), 0, -1) if width % count == 0)
        self.attention = Attention(width, width, heads, dropout=0.0)
        self.mlp_norm = nn.LayerNorm(width, eps=EPSILON)
        self.mlp_in = nn.Linear(width, 4 * width)
        self.mlp_out = nn.Linear(4 * width, width)
        for linear in (self.attention.query, self.attention.key, self.attention.value, self.mlp_in):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
        for linear in (self.attention.output, self.mlp_out):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, T, P, D] to the same."""
        timed = (self.attention_norm(tokens) + self.times).transpose(1, 2)  # [B, P, T, D]
        keys, values = self.attention.project(timed)  # [B, P, h, T, d]
        mixed = self.attention.mix(self.attention.query(timed), keys, values, None)  # [B, P, T, D]
        tokens = tokens + self.attention.output(mixed).transpose(1, 2)
        return tokens + self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(tokens) + self.times)))
