"""BERT behind the text contract: ids [R, L], mask [R, L] -> states [R, L, H].

Shapes: R texts, L tokens, H text width.
"""

from torch import Tensor
from transformers import BertConfig, BertModel, Cache

from models.config import TextConfig
from models.text.encoder import TextEncoder, key_mask, library_config


def bert_config(config: TextConfig) -> BertConfig:
    """The transformers configuration of an encoder of this size."""
    return library_config(BertConfig, config)


class Bert(TextEncoder):
    """transformers' BERT without its pooler."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__(BertModel(bert_config(config), add_pooling_layer=False))

    def forward(self, ids: Tensor, mask: Tensor, positions: Tensor | None = None, read: Cache | None = None) -> Tensor:
        """Encode texts [R, L] with mask [R, L] to [R, L, H]; see `TextEncoder`."""
        return self.backbone(input_ids=ids, attention_mask=key_mask(mask), position_ids=positions, past_key_values=read).last_hidden_state
