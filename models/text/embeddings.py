"""BERT's embeddings, for networks that do not come from transformers.

Shapes: R rows, L tokens, H width.
"""

import torch
from torch import Tensor, nn

from models.config import TextConfig


class TokenEmbedding(nn.Module):
    """Words, positions and types, summed and normalised."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.words = nn.Embedding(config.vocab_size, config.width, padding_idx=config.pad_token_id)
        self.positions = nn.Embedding(config.max_positions, config.width)
        self.types = nn.Embedding(config.type_vocab_size, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, ids: Tensor, types: Tensor, positions: Tensor | None = None) -> Tensor:
        """Ids to states [R, L, H].

        Args:
            ids: [R, L].
            types: [R, L], or [1, 1] for all alike.
            positions: [R, L], or [1, L] for all alike; None: from 0 on.
        """
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)
        return self.dropout(self.norm(self.words(ids) + self.types(types) + self.positions(positions)))
