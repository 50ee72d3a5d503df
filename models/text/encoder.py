"""The contract of text encoders: ids [R, L], mask [R, L] -> states [R, L, H]; and what BERT and RoBERTa have in common.

Shapes: R texts, L tokens, H text width, V vocabulary.
"""

from typing import TypeVar

from torch import Tensor, nn
from transformers import BertConfig, BertModel, Cache, RobertaConfig, RobertaModel

from models.config import TextConfig

LibraryConfig = TypeVar("LibraryConfig", BertConfig, RobertaConfig)


class TextEncoder(nn.Module):
    """A library's encoder without its pooler. Subclasses implement `forward`."""

    def __init__(self, backbone: BertModel | RobertaModel) -> None:
        super().__init__()
        self.backbone = backbone

    @property
    def embedding_weight(self) -> Tensor:
        """[V, H] word embeddings, which a tied masked-LM head shares."""
        return self.backbone.embeddings.word_embeddings.weight

    def blocks(self) -> list[nn.Module]:
        """Its transformer blocks, in order: the units that are compiled, recomputed or sharded by themselves."""
        return list(self.backbone.encoder.layer)

    def forward(self, ids: Tensor, mask: Tensor, positions: Tensor | None = None, read: Cache | None = None) -> Tensor:
        """Encode texts.

        Args:
            ids: [R, L] token ids.
            mask: [R, L] True for tokens, False for padding; or [R, L, L] True where a token (row) may attend to another (column).
            positions: [R, L] number of each token in its text, from 0, where a row holds several texts; None: one text a row.
            read: keys and values of P tokens that were read before, to which those of these tokens are added; masks are then [R, L, P + L].

        Returns:
            [R, L, H]; states of padding positions mean nothing.
        """
        raise NotImplementedError


def library_config(kind: type[LibraryConfig], config: TextConfig) -> LibraryConfig:
    """The transformers configuration of an encoder of this size."""
    return kind(
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


def key_mask(mask: Tensor) -> Tensor:
    """Which tokens may be attended to, [R, 1, L, L] of a mask [R, L] or [R, L, L].

    Of a 2D mask transformers would first ask the device whether it is all ones, a host sync; a ready 4D one it takes as it is.
    """
    mask = mask.bool()
    return mask[:, None] if mask.dim() == 3 else mask[:, None, None, :].expand(-1, 1, mask.shape[1], -1)
