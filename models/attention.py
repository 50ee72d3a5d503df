"""Multi-head attention whose keys and values may come from elsewhere and be projected beforehand, and how it is computed.

Shapes: M rows, L queries, P keys, H width, h heads, d = H/h, B and D rows and width of the source.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

AttentionKind = Literal["fused", "math"]
"""fused: PyTorch's scaled_dot_product_attention, which takes flash or memory-efficient kernels where it can. math: plain products that
keep the probabilities. Where no fused kernel fits (on a CPU: dropout, or a bias that learns), math is faster and keeps less than the
fallback inside fused."""


class Attention(nn.Module):
    """Queries of some states over given keys and values."""

    def __init__(self, width: int, source_width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.kind: AttentionKind = "fused"
        self.recorded: list[Tensor] | None = None
        """Takes the probabilities of each call while `recording` is on."""
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(source_width, width)
        self.value = nn.Linear(source_width, width)
        self.output = nn.Linear(width, width)

    def split(self, states: Tensor) -> Tensor:
        """[.., L, H] -> [.., h, L, d]"""
        return states.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def project(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, h, P, d] of source states [B, P, D]."""
        return self.split(self.key(source)), self.split(self.value(source))

    def mix(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Values [M, L, H], heads side by side, mixed for projected queries [M, L, H].

        Args:
            queries: [M, L, H].
            keys: [M, h, P, d].
            values: [M, h, P, d].
            mask: True where attending is allowed, [M, 1, 1 or L, P]; None for everywhere.
        """
        dropout = self.dropout if self.training else 0.0
        if self.recorded is not None:
            probabilities = _probabilities(self.split(queries), keys, mask)
            if torch.is_grad_enabled():
                probabilities.requires_grad_()  # where no weight has a gradient
            self.recorded.append(probabilities)
            return (F.dropout(probabilities, dropout) @ values).transpose(-3, -2).flatten(-2)
        mixed = attend(self.split(queries), keys, values, mask, dropout, self.kind)
        return mixed.transpose(-3, -2).flatten(-2)


@contextmanager
def recording(attention: Attention) -> Iterator[list[Tensor]]:
    """Keep the attention probabilities [M, h, L, P] of each forward pass inside, in order.

    They are part of what is computed from them, so that results can be differentiated by them. Outside, attention is computed as ever;
    inside, compiled blocks run uncompiled, since a compiler would leave no such tensor.
    """
    kept: list[Tensor] = []
    attention.recorded = kept
    try:
        with torch.compiler.set_stance("force_eager"):
            yield kept
    finally:
        attention.recorded = None


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, dropout: float, kind: AttentionKind) -> Tensor:
    """Attention of queries [M, h, L, d] over keys and values [M, h, P, d]; mask as in `Attention.mix`; returns [M, h, L, d]."""
    if kind == "fused":
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, dropout_p=dropout)
    return F.dropout(_probabilities(queries, keys, mask), dropout) @ values


def _probabilities(queries: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-2, -1)  # the fewer queries are scaled, not the keys
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1)


def use_attention(model: nn.Module, kind: AttentionKind) -> None:
    """Let all attention in a model be computed in one way, ours and timm's; transformers' text encoders always take the fused one."""
    for module in model.modules():
        if isinstance(module, Attention):
            module.kind = kind
        elif isinstance(getattr(module, "fused_attn", None), bool):  # timm's modules
            setattr(module, "fused_attn", kind == "fused")  # noqa: B010 (no attribute that nn.Module declares)
