"""RoBERTa and XLM-R behind the text contract: ids [R, L], mask [R, L] -> states [R, L, H].

Shapes: R texts, L tokens, H text width, V vocabulary.
"""

import torch
from torch import Tensor, nn
from transformers import RobertaConfig, RobertaModel

from models.config import TextConfig


def roberta_config(config: TextConfig) -> RobertaConfig:
    """The transformers configuration of an encoder of this size."""
    return RobertaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.intermediate,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
        max_position_embeddings=config.max_positions,
        type_vocab_size=config.type_vocab_size,
        pad_token_id=config.pad_token_id,
        layer_norm_eps=config.layer_norm_eps,
        attn_implementation="sdpa",  # pyright: ignore[reportCallIssue]  (a documented argument that the class takes by name only)
    )


class Roberta(nn.Module):
    """transformers' RoBERTa without its pooler; XLM-R is the same network."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.backbone = RobertaModel(roberta_config(config), add_pooling_layer=False)
        self.pad_token_id = config.pad_token_id

    @property
    def embedding_weight(self) -> Tensor:
        """[V, H] word embeddings, which a tied masked-LM head shares."""
        return self.backbone.embeddings.word_embeddings.weight

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Encode texts.

        Args:
            ids: [R, L] token ids.
            mask: [R, L] True for tokens, False for padding.

        Returns:
            [R, L, H]; states of padding positions mean nothing.
        """
        # Positions and a 4D mask of our own: transformers would ask the device whether the mask is all ones, a host sync.
        keep = mask.bool()
        tokens = ids != self.pad_token_id
        positions = self.pad_token_id + tokens.cumsum(dim=1) * tokens
        keys = keep[:, None, None, :].expand(-1, 1, mask.shape[1], -1)
        return self.backbone(input_ids=ids, attention_mask=keys, position_ids=positions.to(torch.int64)).last_hidden_state
