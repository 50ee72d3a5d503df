"""Models as beam search reads with them (`models.generation.Reader`): what was read is kept, and images are projected once.

Shapes: M texts, T tokens that are read at once, B images, P visual tokens, D vision width, H text width, V vocabulary.
"""

from typing import Protocol

import torch
from torch import Tensor
from transformers import DynamicCache

from models.decoder import Decoder, Memory, Past, left_to_right
from models.vlm import VisionLanguageModel


class Forgetful(Protocol):
    """A reader that can forget the last tokens."""

    def step(self, tokens: Tensor) -> Tensor:
        """See `generation.Reader`."""
        ...

    def reorder(self, rows: Tensor) -> None:
        """See `generation.Reader`."""
        ...

    def forget(self, count: int) -> None:
        """As if the last `count` tokens had not been read."""
        ...


class DecoderReader:
    """A decoder. The texts of one image or question share its keys and values."""

    def __init__(self, decoder: Decoder, memory: Memory) -> None:
        self.decoder, self.memory = decoder, memory
        self.past: Past = []

    def step(self, tokens: Tensor) -> Tensor:
        """See `generation.Reader`."""
        logits, self.past = self.decoder.step(tokens, self.memory, self.past)
        return logits

    def reorder(self, rows: Tensor) -> None:
        """See `generation.Reader`."""
        self.past = [(keys[rows], values[rows]) for keys, values in self.past]

    def forget(self, count: int) -> None:
        """See `Forgetful`."""
        self.past = [(keys[:, :, :-count], values[:, :, :-count]) for keys, values in self.past]


class EncodersReader:
    """A text encoder and a fusion encoder that read from left to right, with the masked-LM head to tell what comes next (X-VLM's captions).

    Args:
        model: with the masked-LM head.
        images: tokens [B, P, D]; the M / B texts of an image share its keys and values.
    """

    def __init__(self, model: VisionLanguageModel, images: Tensor) -> None:
        self.model = model
        self.memory = Memory.project(model.fusion.blocks(), images, None)
        self.texts, self.past, self.read = DynamicCache(), Past(), 0

    def step(self, tokens: Tensor) -> Tensor:
        """See `generation.Reader`."""
        count, length = tokens.shape
        places = self.read + torch.arange(length, device=tokens.device).expand(count, -1)
        seen = left_to_right(length, self.read + length, tokens.device)
        states = self.model.text(tokens, seen[0].expand(count, -1, -1), places, self.texts)
        present = Past()
        for index, layer in enumerate(self.model.fusion.blocks()):
            states, keys, values = layer.read(states, seen, self.memory.of_layer(index), self.past[index] if self.past else None)
            present.append((keys, values))
        self.past, self.read = present, self.read + length
        return self.model.mlm_head(states[:, -1], self.model.text.embedding_weight)

    def reorder(self, rows: Tensor) -> None:
        """See `generation.Reader`."""
        self.texts.batch_select_indices(rows)
        self.past = [(keys[rows], values[rows]) for keys, values in self.past]

    def forget(self, count: int) -> None:
        """See `Forgetful`."""
        self.read -= count
        self.texts.crop(-count)
        self.past = [(keys[:, :, :-count], values[:, :, :-count]) for keys, values in self.past]


class MaskedReader:
    """Tells what comes next from a [MASK] behind the text, which nothing else attends to (UniLM; X2-VLM's captions)."""

    def __init__(self, reader: Forgetful, mask_id: int) -> None:
        self.reader, self.mask_id = reader, mask_id

    def step(self, tokens: Tensor) -> Tensor:
        """See `generation.Reader`."""
        logits = self.reader.step(torch.cat([tokens, torch.full_like(tokens[:, :1], self.mask_id)], dim=1))
        self.reader.forget(1)
        return logits

    def reorder(self, rows: Tensor) -> None:
        """See `generation.Reader`."""
        self.reader.reorder(rows)
