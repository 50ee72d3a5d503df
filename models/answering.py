"""The model that answers questions about images: encoders, and either a decoder that writes answers or a head that chooses a class.

Shapes: B questions with one image each, L text tokens, H text width, C classes.
"""

import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.decoder import Decoder, decoder_sources
from models.heads import mlp_head
from models.vlm import FusionPass, VisionLanguageModel


class AnsweringModel(VisionLanguageModel):
    """Encoders with a decoder, or with a classification head.

    Args:
        config: of the model.
        classes: number of answers to choose from; None builds the decoder instead.
    """

    def __init__(self, config: ModelConfig, classes: int | None = None) -> None:
        super().__init__(config, ())
        self.decoder: Decoder | None = None
        if classes is None:
            self.decoder = Decoder(config)
        else:
            self.cls_head = mlp_head(config.text.width, classes)

    def blocks(self) -> list[nn.Module]:
        """All transformer blocks, the decoder's too."""
        return [*super().blocks(), *(self.decoder.blocks() if self.decoder is not None else [])]

    def starts_from(self) -> dict[str, str]:
        """Tensors that start from others of a checkpoint that lacks them, as each family's published code does; see `decoder_sources`."""
        return decoder_sources(self.config) if self.decoder is not None else {}

    def read_questions(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Questions, token ids [B, L] with mask [B, L], fused with their images or clips [B, .., 3, S, S]: states [B, L, H]."""
        return self._fused(images, ids, mask, pooled=False)

    def class_logits(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits [B, C] of the classes."""
        return self.cls_head(self._fused(images, ids, mask, pooled=True)[:, 0])

    def answer_decoder(self) -> Decoder:
        """The decoder of a model that has one."""
        assert self.decoder is not None, "built without classes"
        return self.decoder

    def _fused(self, images: Tensor, ids: Tensor, mask: Tensor, pooled: bool) -> Tensor:
        context = self.context(self.encode_images(images))
        view = torch.arange(len(ids), device=ids.device)
        return self.fuse(context, [FusionPass(self.encode_text(ids, mask), mask, view, pooled=pooled)])[0]
