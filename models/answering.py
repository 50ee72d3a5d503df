"""The model that answers questions about images: encoders, and either a decoder that writes answers or a head that chooses a class.

Shapes: B questions with one image each, L text tokens, H text width, C classes.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from models.adopting import without_other_head
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

    def stacks(self) -> list[Sequence[nn.Module]]:
        """See `VisionLanguageModel.stacks`; the decoder's come last."""
        return [*super().stacks(), *([self.decoder.blocks()] if self.decoder is not None else [])]

    def adopt(self, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        """Which tensor of a file each of the model's starts from (`models.adopting`): all but a head for other answers; a decoder
        that the file lacks from other parts, as each family's published code does (see `decoder_sources`)."""
        given, own = without_other_head(tensors, self), self.state_dict()
        starts = decoder_sources(self.config) if self.decoder is not None else {}
        usable = {name: origin for name, origin in starts.items() if name not in given and origin in given}
        return {name: name for name in given} | {name: origin for name, origin in usable.items() if given[origin].shape == own[name].shape}

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
        return self.fuse(context, [FusionPass(self.encode_text(ids, mask), mask, None, pooled=pooled)])[0]
