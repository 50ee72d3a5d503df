"""The model that describes images: it reads a text from left to right with an image in view, and tells what comes next.

Shapes: B images, M = K * B texts, the K of each image one after another, L tokens, J places that are predicted, P visual tokens, D vision
width, H text width, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from models.attention import recording
from models.config import ModelConfig
from models.decoder import Decoder, decoder_sources
from models.generation import Reader
from models.reading import DecoderReader, EncodersReader, MaskedReader
from models.vlm import FusionPass, VisionLanguageModel

Writer = Literal["encoders", "decoder"]
"""encoders: the text and the fusion encoder write, each token attending to those before it alone (X-VLM, X2-VLM). decoder: a network of its
own that starts from the fusion encoder's layers and attends to images (X-FM)."""
Prediction = Literal["causal", "masked"]
"""Where the next token is predicted. causal: at the last token (X-VLM, X-FM). masked: at a [MASK] behind it (X2-VLM, after UniLM)."""


class CaptioningModel(VisionLanguageModel):
    """Encoders that write themselves, or with a decoder that writes.

    Args:
        config: of the model.
        writer: see `Writer`; what a decoder leaves idle, the text and the fusion encoder, gets no gradient.
    """

    def __init__(self, config: ModelConfig, writer: Writer = "encoders") -> None:
        super().__init__(config, ("mlm",) if writer == "encoders" else ())
        self.decoder: Decoder | None = None
        if writer == "decoder":
            self.decoder = Decoder(config, config.vision.width)
            for idle in (self.text, self.fusion):
                idle.requires_grad_(False)

    def stacks(self) -> list[Sequence[nn.Module]]:
        """See `VisionLanguageModel.stacks`; of those that write."""
        return super().stacks() if self.decoder is None else [self.vision.blocks(), self.decoder.blocks()]

    def adopt(self, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        """Which tensor of a file each of the model's starts from (`models.adopting`): a decoder that the file lacks from the fusion
        encoder and its masked-LM head."""
        starts = decoder_sources(self.config, self.config.vision.width) if self.decoder is not None else {}
        usable = {name: origin for name, origin in starts.items() if name not in tensors and origin in tensors}
        return {name: name for name in tensors} | usable

    def read(self, images: Tensor, ids: Tensor, mask: Tensor, places: Tensor) -> Tensor:
        """Whole texts.

        Args:
            images: tokens [B, P, D].
            ids: [M, L] token ids.
            mask: [M, L, L] True where a token (row) may attend to another one (column).
            places: [M, L] place of each token in its text, from 0.

        Returns:
            States [M, L, H].
        """
        if self.decoder is not None:
            return self.decoder(ids, mask, self.decoder.memory(images, None), places)
        each = len(ids) // len(images)
        owner = None if each == 1 else torch.arange(len(images), device=ids.device).repeat_interleave(each)
        return self.fuse(self.context(images), [FusionPass(self.text(ids, mask, places), mask, owner)])[0]

    def logits(self, states: Tensor) -> Tensor:
        """Vocabulary logits [.., V] of states [.., H]."""
        return self.mlm_head(states, self.text.embedding_weight) if self.decoder is None else self.decoder.logits(states)

    def logits_at(self, states: Tensor, positions: Tensor) -> Tensor:
        """Vocabulary logits [M, J, V] at `positions` [M, J] of states [M, L, H]."""
        return self.logits(states.gather(1, positions[:, :, None].expand(-1, -1, states.shape[2])))

    def reader(self, images: Tensor, mask_id: int | None) -> Reader:
        """What writes about images, tokens [B, P, D]: from the last token on, or with the id of [MASK] at a [MASK] behind it."""
        reader = EncodersReader(self, images) if self.decoder is None else DecoderReader(self.decoder, self.decoder.memory(images, None))
        return reader if mask_id is None else MaskedReader(reader, mask_id)

    @torch.no_grad()
    def attention_maps(self, images: Tensor, ids: Tensor) -> Tensor:
        """Where the tokens of texts without padding [B, L] look: cross-attention of the last layer [B, h, L, P]."""
        mask, places = visible(torch.zeros_like(ids, dtype=torch.bool)), torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        last = (self.fusion if self.decoder is None else self.decoder).blocks()[-1]
        with recording(last.cross_attention) as recorded:
            self.read(images, ids, mask, places)
        return recorded[0]


def visible(inserted: Tensor) -> Tensor:
    """Which tokens may attend to which: to themselves and those before, but to no inserted [MASK] other than themselves.

    Args:
        inserted: [M, L] True for a [MASK] that stands before its token; padding follows the text, so that no token sees it.

    Returns:
        [M, L, L]
    """
    length = inserted.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=inserted.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=inserted.device)
    return causal & (~inserted[:, None, :] | itself)


def interleaved(prompt: Tensor, tokens: Tensor, mask_id: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Texts in which a [MASK] stands before every token behind the prompt, so that all are predicted at once as `MaskedReader` does.

    Args:
        prompt: [M, P].
        tokens: [M, T] what follows it.
        mask_id: of [MASK].

    Returns:
        Token ids [M, P + 2T], their places, which are inserted, and where each token is predicted [M, T].
    """
    (count, start), length = prompt.shape, tokens.shape[1]
    ids = torch.cat([prompt, torch.stack([torch.full_like(tokens, mask_id), tokens], dim=2).flatten(1)], dim=1)
    behind = torch.arange(length, device=prompt.device)
    places = torch.cat([torch.arange(start, device=prompt.device), (start + behind).repeat_interleave(2)]).expand(count, -1)
    positions = (start + 2 * behind).expand(count, -1)
    return ids, places, torch.zeros_like(ids, dtype=torch.bool).scatter(1, positions, True), positions
