"""RoBERTa and XLM-R behind the text contract: ids [R, L], mask [R, L] -> states [R, L, H].

Shapes: R texts, L tokens, H text width.
"""

import torch
from torch import Tensor
from transformers import Cache, RobertaConfig, RobertaModel

from models.config import TextConfig
from models.text.encoder import TextEncoder, key_mask, library_config


def roberta_config(config: TextConfig) -> RobertaConfig:
    """The transformers configuration of an encoder of this size."""
    return library_config(RobertaConfig, config)


class Roberta(TextEncoder):
    """transformers' RoBERTa without its pooler; XLM-R is the same network."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__(RobertaModel(roberta_config(config), add_pooling_layer=False))
        self.pad_token_id = config.pad_token_id

    def forward(self, ids: Tensor, mask: Tensor, positions: Tensor | None = None, read: Cache | None = None) -> Tensor:
        """Encode texts [R, L] with mask [R, L] to [R, L, H]; see `TextEncoder`. Positions skip padding and start behind its id."""
        tokens = ids != self.pad_token_id
        numbers = tokens.cumsum(dim=1) if positions is None else positions + 1
        places = self.pad_token_id + numbers * tokens
        return self.backbone(
            input_ids=ids, attention_mask=key_mask(mask), position_ids=places.to(torch.int64), past_key_values=read
        ).last_hidden_state
