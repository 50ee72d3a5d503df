"""A left-to-right decoder over fused texts (X-VLM section 4.3): BERT layers with causal self-attention and cross-attention to the states
of a question, embeddings of their own, and a masked-LM head that shares them.

Shapes: B questions, J tokens of a question, M texts to be read, L their tokens, K texts of one question, H width, h heads, d = H/h,
V vocabulary.
"""

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


@dataclass(frozen=True)
class Memory:
    """What a decoder attends to: every layer's keys and values of the questions, projected once."""

    keys: list[Tensor]
    """For each layer [B, h, J, d]."""
    values: list[Tensor]
    mask: Tensor | None
    """[B, 1, 1, J] True where attending is allowed; None for everywhere."""

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
        """The whole layer.

        Args:
            states: [M, L, H], the K texts of each question one after another.
            seen: [M, 1, L, L] or broadcastable, True where a token attends to another one; None for all of them.
            memory: of the questions, of which there are M / K. The K texts of one attend to it as if they were one text, so that its keys
                and values serve all of them and are never copied.
            past: keys and values [M, h, .., d] of the tokens that were read before.

        Returns:
            [M, L, H], and keys and values [M, h, .., d] of all tokens so far.
        """
        own, cross = self.self_attention, self.cross_attention
        keys, values = own.project(states)
        if past is not None:
            keys, values = torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2)
        states = self.self_attention_norm(states + self.dropout(own.output(own.mix(own.query(states), keys, values, seen))))
        together = states.reshape(len(memory.keys), -1, states.shape[2])  # [B, K*L, H]
        mixed = cross.output(cross.mix(cross.query(together), *memory))
        states = self.cross_attention_norm(states + self.dropout(mixed.reshape(states.shape)))
        return self.feed_forward(states), keys, values


class Decoder(nn.Module):
    """The decoder with its head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        text = decoder_text(config)
        self.kind, self.pad_token_id = text.kind, text.pad_token_id
        self.embeddings = TokenEmbedding(text)
        fusion = FusionConfig(heads=text.heads, intermediate=text.intermediate)
        self.layers = nn.ModuleList([DecoderLayer(text, fusion, text.width) for _ in range(text.layers)])
        self.head = MaskedLMHead(text.width, text.vocab_size, text.layer_norm_eps)
        self.initializer_std = config.initializer_std
        self.apply(self._initialize)

    def blocks(self) -> list[DecoderLayer]:
        """Its layers, in order."""
        return [layer for layer in self.layers if isinstance(layer, DecoderLayer)]

    def memory(self, states: Tensor, mask: Tensor | None) -> Memory:
        """Project the states [B, J, H] of questions with mask [B, J], True for tokens; None attends to padding as well."""
        pairs = [layer.project(states) for layer in self.blocks()]
        keep = None if mask is None else mask.bool()[:, None, None, :]
        return Memory([keys for keys, _ in pairs], [values for _, values in pairs], keep)

    def forward(self, ids: Tensor, mask: Tensor | None, memory: Memory) -> Tensor:
        """Read whole texts.

        Args:
            ids: [M, L] token ids, the start token first.
            mask: [M, L] True for tokens; None: there is no padding.
            memory: of the M / K questions.

        Returns:
            States [M, L, H]; position i has read the tokens up to i.
        """
        length = ids.shape[1]
        seen = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()[None, None]  # [1, 1, L, L]
        if mask is not None:
            seen = seen & mask.bool()[:, None, None, :]
        states = self.embed(ids, torch.arange(length, device=ids.device)[None], mask)
        for index, layer in enumerate(self.blocks()):
            states, _, _ = layer(states, seen, memory.of_layer(index), None)
        return states

    def step(self, tokens: Tensor, memory: Memory, past: Past) -> tuple[Tensor, Past]:
        """Read one more token of each text.

        Args:
            tokens: [M].
            memory: of the M / K questions.
            past: of the tokens before; empty at the start.

        Returns:
            Logits [M, V] of the next token, and the past that includes this one.
        """
        place = past[0][0].shape[2] if past else 0
        states = self.embed(tokens[:, None], torch.full((1, 1), place, device=tokens.device), None)
        present: Past = []
        for index, layer in enumerate(self.blocks()):
            states, keys, values = layer(states, None, memory.of_layer(index), past[index] if past else None)
            present.append((keys, values))
        return self.logits(states)[:, 0], present

    def embed(self, ids: Tensor, places: Tensor, mask: Tensor | None) -> Tensor:
        """States [M, L, H] of tokens [M, L] at places [1, L], counted from the start of the text."""
        if self.kind == "roberta":  # positions skip padding and start behind its id
            places = self.pad_token_id + (1 + places if mask is None else mask.cumsum(dim=1) * mask)
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


def decoder_sources(config: ModelConfig) -> dict[str, str]:
    """Which tensors of a model without a decoder those of its decoder start from, by our names.

    Layers start from those of the fusion encoder, the last one of each pair where the decoder has half as many; the projections of what
    is attended to only where images are as wide as texts. Embeddings and head start from what `DecoderConfig.embeddings_from` says.
    """
    origin = (config.decoder or DecoderConfig()).embeddings_from
    per = max(config.fusion.layers // max(decoder_text(config).layers, 1), 1)
    with torch.device("meta"):
        names = list(Decoder(config).state_dict())
    sources: dict[str, str] = {}
    for name in names:
        part, _, rest = name.partition(".")
        if part == "layers":
            number, _, inner = rest.partition(".")
            if config.vision.width == config.text.width or not inner.startswith(OF_IMAGES):
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
