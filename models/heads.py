"""What sits on top of the encoders: matching, box and classification MLPs, and the masked-LM head.

Shapes: H width, V vocabulary.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def mlp_head(inputs: int, outputs: int) -> nn.Sequential:
    """Linear to twice the width, LayerNorm, GELU, Linear: the head of matching, box and classification (official `build_mlp`)."""
    return nn.Sequential(nn.Linear(inputs, 2 * inputs), nn.LayerNorm(2 * inputs), nn.GELU(), nn.Linear(2 * inputs, outputs))


def deep_head(inputs: int, outputs: int) -> nn.Sequential:
    """Five linear layers of widths 2, 4, 2 and 1 times the input's between, each followed by LayerNorm and GELU (X-FM on images)."""
    widths = [inputs, 2 * inputs, 4 * inputs, 2 * inputs, inputs]
    hidden = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.LayerNorm(b), nn.GELU())]
    return nn.Sequential(*hidden, nn.Linear(inputs, outputs))


HeadDepth = Literal["linear", "shallow", "deep"]
HEAD_DEPTHS: dict[HeadDepth, Callable[[int, int], nn.Module]] = {"linear": nn.Linear, "shallow": mlp_head, "deep": deep_head}


class MaskedLMHead(nn.Module):
    """BERT's masked-LM head.

    The output matrix is the word embedding of the text encoder, passed at each call, or one of the head's own (`tied` False).
    """

    def __init__(self, width: int, vocab_size: int, layer_norm_eps: float, tied: bool = True) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)
        self.decoder = None if tied else nn.Parameter(torch.empty(vocab_size, width).normal_(std=0.02))

    def forward(self, states: Tensor, embedding: Tensor) -> Tensor:
        """Vocabulary logits [.., V] of states [.., H] with the embedding [V, H], which an untied head leaves aside."""
        matrix = embedding if self.decoder is None else self.decoder
        return F.linear(self.norm(F.gelu(self.dense(states))), matrix, self.bias)
