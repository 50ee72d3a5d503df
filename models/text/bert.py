"""BERT behind the text contract: ids [R, L], mask [R, L] -> states [R, L, H].

Shapes: R texts, L tokens, H text width, V vocabulary.
"""

from torch import Tensor, nn
from transformers import BertConfig, BertModel

from models.config import TextConfig


def bert_config(config: TextConfig) -> BertConfig:
    """The transformers configuration of an encoder of this size."""
    return BertConfig(
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


class Bert(nn.Module):
    """transformers' BERT without its pooler."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.backbone = BertModel(bert_config(config), add_pooling_layer=False)

    @property
    def embedding_weight(self) -> Tensor:
        """[V, H] word embeddings, which the masked-LM head shares."""
        return self.backbone.embeddings.word_embeddings.weight

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Encode texts.

        Args:
            ids: [R, L] token ids.
            mask: [R, L] True for tokens, False for padding.

        Returns:
            [R, L, H]; states of padding positions mean nothing.
        """
        # A ready 4D mask: from a 2D one transformers would first ask the device whether it is all ones, a host sync.
        keys = mask.bool()[:, None, None, :].expand(-1, 1, mask.shape[1], -1)
        return self.backbone(input_ids=ids, attention_mask=keys).last_hidden_state
