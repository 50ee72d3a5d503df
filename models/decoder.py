"""A left-to-right decoder over fused texts (X-VLM section 4.3): BERT layers with causal self-attention and cross-attention to the states
of a question, embeddings of their own, and a masked-LM head that shares them.

Shapes: B questions, J tokens of a question, M texts to be read, L their tokens, K texts of one question, H width, h heads, d = H/h,
V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.config import DecoderConfig, FusionConfig, ModelConfig, TextConfig
from models.context import Seen
from models.fusion import FusionLayer
from models.heads import MaskedLMHead
from models.text.embeddings import TokenEmbedding

Past = list[tuple[Tensor, Tensor]]
"""For each layer the keys and values [M, h, L, d] of the tokens that were read."""


TEXT_EMBEDDINGS = {"words": "word_embeddings", "positions": "position_embeddings", "types": "token_type_embeddings", "norm": "LayerNorm"}
"""The decoder's embeddings to those of a text encoder of transformers."""


OF_IMAGES = ("cross_attention.key.", "cross_attention.value.")
"""Parts of a fusion layer that read images."""


def left_to_right(queries: int, tokens: int, device: torch.device) -> Tensor:
    """[1, 1, queries, tokens] True where the last tokens of a text may attend to the text: to themselves and what stands before them."""
    return torch.ones(queries, tokens, dtype=torch.bool, device=device).tril(tokens - queries)[None, None]


@dataclass(frozen=True)
class Memory:
    """What a decoder attends to: every layer's keys and values of the questions, projected once."""

    keys: list[Tensor]
    """For each layer [B, h, J, d]."""
    values: list[Tensor]
    mask: Tensor | None
    """[B, 1, 1, J] True where attending is allowed; None for everywhere."""

    @classmethod
    def project(cls, layers: Sequence[FusionLayer], states: Tensor, mask: Tensor | None) -> "Memory":
        """Of states [B, J, H] with mask [B, J], True for tokens; None attends to padding as well."""
        pairs = [layer.project(states) for layer in layers]
        return cls([keys for keys, _ in pairs], [values for _, values in pairs], None if mask is None else mask.bool()[:, None, None, :])

    def __len__(self) -> int:
        return len(self.keys[0])

    def of_layer(self, layer: int) -> Seen:
        """What one layer attends to."""
        return Seen(self.keys[layer], self.values[layer], self.mask)

    def of(self, owner: Tensor) -> "Memory":
        """A copy for each text, `owner` [M] its question: for texts in any number a question."""
        mask = None if self.mask is None else self.mask[owner]
        return Memory([keys[owner] for keys in self.keys], [values[owner] for values in self.values], mask)


class DecoderLayer(FusionLayer):
    """A fusion layer that reads from left to right and remembers what it has read."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  (another kind of call)
        self, states: Tensor, seen: Tensor | None, memory: Seen, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `FusionLayer.read`."""
        return self.read(states, seen, memory, past)


class Decoder(nn.Module):
    """The decoder with its head.

    Args:
        config: of the model.
        attended: width of what it attends to; None: that of texts.
    """

    def __init__(self, config: ModelConfig, attended: int | None = None) -> None:
        super().__init__()
        text = decoder_text(config)
        self.kind, self.pad_token_id = text.kind, text.pad_token_id
        self.embeddings = TokenEmbedding(text)
        fusion = FusionConfig(heads=text.heads, intermediate=text.intermediate)
        self.layers = nn.ModuleList([DecoderLayer(text, fusion, _or(attended, text.width)) for _ in range(text.layers)])
        self.head = MaskedLMHead(text.width, text.vocab_size, text.layer_norm_eps)
        self.initializer_std = config.initializer_std
        self.apply(self._initialize)

    def blocks(self) -> list[DecoderLayer]:
        """Its layers, in order."""
        return [layer for layer in self.layers if isinstance(layer, DecoderLayer)]

    def memory(self, states: Tensor, mask: Tensor | None) -> Memory:
        """Project the states [B, J, H] of questions with mask [B, J], True for tokens; None attends to padding as well."""
        return Memory.project(self.blocks(), states, mask)

    def forward(self, ids: Tensor, mask: Tensor | None, memory: Memory, places: Tensor | None = None) -> Tensor:
        """Read whole texts.

        Args:
            ids: [M, L] token ids, the start token first.
            mask: [M, L] True for tokens; [M, L, L] True where a token (row) may attend to another (column), in place of reading from left
                to right; None: there is no padding.
            memory: of the M / K questions.
            places: [M, L] places of the tokens in their text, from 0; None: they follow one another.

        Returns:
            States [M, L, H]; position i has read the tokens up to i.
        """
        if mask is not None and mask.dim() == 3:
            seen = mask.bool()[:, None]
        else:
            seen = left_to_right(ids.shape[1], ids.shape[1], ids.device)
            seen = seen if mask is None else seen & mask.bool()[:, None, None, :]
        states = self.embed(ids, places, mask)
        for index, layer in enumerate(self.blocks()):
            states, _, _ = layer(states, seen, memory.of_layer(index), None)
        return states

    def step(self, tokens: Tensor, memory: Memory, past: Past) -> tuple[Tensor, Past]:
        """Read more tokens of each text.

        Args:
            tokens: [M, T].
            memory: of the M / K questions.
            past: of the tokens before; empty at the start.

        Returns:
            Logits [M, V] of what comes after the last one, and the past that includes these.
        """
        read = past[0][0].shape[2] if past else 0
        places = read + torch.arange(tokens.shape[1], device=tokens.device)[None]
        seen = left_to_right(tokens.shape[1], read + tokens.shape[1], tokens.device) if tokens.shape[1] > 1 else None
        states = self.embed(tokens, places, None)
        present: Past = []
        for index, layer in enumerate(self.blocks()):
            states, keys, values = layer(states, seen, memory.of_layer(index), past[index] if past else None)
            present.append((keys, values))
        return self.logits(states[:, -1]), present

    def embed(self, ids: Tensor, places: Tensor | None, mask: Tensor | None) -> Tensor:
        """States [M, L, H] of tokens [M, L] at places [1 or M, L], counted from the start of the text; None: they follow one another."""
        tokens = mask if mask is not None and mask.dim() == 2 and places is None else None
        places = torch.arange(ids.shape[1], device=ids.device)[None] if places is None else places
        if self.kind == "roberta":  # positions skip padding and start behind its id
            places = self.pad_token_id + (1 + places if tokens is None else tokens.cumsum(dim=1) * tokens)
        return self.embeddings(ids, torch.zeros(1, 1, dtype=torch.int64, device=ids.device), places.to(torch.int64))

    def logits(self, states: Tensor) -> Tensor:
        """Vocabulary logits [.., V] of states [.., H]: what comes next."""
        return self.head(states, self.embeddings.words.weight)

    def _initialize(self, module: nn.Module) -> None:
        """BERT's initial weights; no row for padding."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.initializer_std)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx])


def decoder_text(config: ModelConfig) -> TextConfig:
    """The sizes of a model's decoder, as those of a text encoder: its layers are of the fusion encoder's kind."""
    text, fusion, decoder = config.text, config.fusion, config.decoder or DecoderConfig()
    sizes = {
        "kind": decoder.positions or text.kind,
        "layers": _or(decoder.layers, fusion.layers),
        "heads": fusion.heads or text.heads,
        "intermediate": fusion.intermediate or text.intermediate,
        "layer_norm_eps": text.layer_norm_eps if fusion.layer_norm_eps is None else fusion.layer_norm_eps,
        "max_positions": _or(decoder.max_positions, text.max_positions),
        "type_vocab_size": _or(decoder.type_vocab_size, text.type_vocab_size),
    }
    return text.model_copy(update=sizes)


def decoder_sources(config: ModelConfig, attended: int | None = None) -> dict[str, str]:
    """Which tensors of a model without a decoder those of its decoder start from, by our names.

    Layers start from those of the fusion encoder, the last one of each pair where the decoder has half as many; the projections of what
    is attended to, of width `attended` (None: that of texts), only where images are as wide. Embeddings and head start from what
    `DecoderConfig.embeddings_from` says.
    """
    origin = (config.decoder or DecoderConfig()).embeddings_from
    per = max(config.fusion.layers // max(decoder_text(config).layers, 1), 1)
    with torch.device("meta"):
        names = list(Decoder(config, attended).state_dict())
    sources: dict[str, str] = {}
    for name in names:
        part, _, rest = name.partition(".")
        if part == "layers":
            number, _, inner = rest.partition(".")
            if config.vision.width == _or(attended, config.text.width) or not inner.startswith(OF_IMAGES):
                sources[f"decoder.{name}"] = f"fusion.layers.{(int(number) + 1) * per - 1}.{inner}"
        elif part == "head" and origin != "nothing":
            sources[f"decoder.{name}"] = f"mlm_head.{rest}"
        elif part == "embeddings" and origin == "text":
            kind, _, inner = rest.partition(".")
            sources[f"decoder.{name}"] = f"text.backbone.embeddings.{TEXT_EMBEDDINGS[kind]}.{inner}"
        elif part == "embeddings" and origin == "output":
            sources[f"decoder.{name}"] = "mlm_head.decoder" if rest == "words.weight" else f"fusion_embeddings.{rest}"
    return sources


def _or(value: int | None, other: int) -> int:
    return other if value is None else value
