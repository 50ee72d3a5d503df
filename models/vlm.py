"""One vision encoder, one text encoder, one fusion encoder, and heads: the model of X-VLM (arXiv 2111.08276), X2-VLM (2211.12402),
CCLM (2206.00621) and X-FM (2301.05065). Which encoders and heads is a matter of configuration.

Shapes: B images, R texts, N patches, L text tokens, M masked positions, D vision width, H text width, E feature width, V vocabulary.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.errors import UserError
from models.config import Beit2Config, ClipVitConfig, ModelConfig, SwinConfig, TextConfig, VisionSettings
from models.context import VisionContext
from models.fusion import Fusion, FusionPass
from models.heads import MaskedLMHead, mlp_head
from models.packing import Packing
from models.text.bert import Bert
from models.text.encoder import TextEncoder
from models.text.roberta import Roberta
from models.vision.beit2 import Beit2
from models.vision.clip_vit import ClipVit
from models.vision.encoder import VisionEncoder
from models.vision.normalize import normalize_images
from models.vision.regions import RegionViews
from models.vision.swin import Swin
from models.vision.video import FrameMean
from models.vision.vqkd import VisualTokenizer

Head = Literal["itc", "itm", "mlm", "box", "text_mlm", "mim"]
ALL_HEADS: tuple[Head, ...] = get_args(Head)
HEADS: tuple[Head, ...] = ("itc", "itm", "mlm", "box")
"""Those that any vision encoder goes with."""
TEMPERATURE_RANGE = (0.001, 0.5)
STANDARD_STD = 0.02
"""What timm, transformers and our fusion encoder initialise matrices with."""


class VisionLanguageModel(nn.Module):
    """The encoders and the heads that the objectives at hand need; unused heads are not built, so every parameter gets a gradient."""

    def __init__(self, config: ModelConfig, heads: Iterable[Head]) -> None:
        super().__init__()
        vision, text, wanted = config.vision, config.text, set(heads)
        self.config = config
        self.vision = build_vision(vision, hides_patches="mim" in wanted)
        self.frames = FrameMean(vision) if vision.frames else None
        self.text = build_text(text)
        self.fusion = Fusion(text, config.fusion, vision.width)
        if config.initializer_std != STANDARD_STD:
            encoders = [self.vision, self.text, self.fusion, *([self.frames] if self.frames is not None else [])]
            rescale(encoders, config.initializer_std / STANDARD_STD)
        if "itc" in wanted:
            self.vision_proj = nn.Linear(vision.width, config.projection_dim)
            self.text_proj = nn.Linear(text.width, config.projection_dim)
            self.temperature = nn.Parameter(torch.tensor(config.temperature), requires_grad=config.learn_temperature)
        if "itm" in wanted:
            self.itm_head = mlp_head(text.width, 2)
        if "mlm" in wanted:
            self.mlm_head = MaskedLMHead(text.width, text.vocab_size, text.layer_norm_eps, tied=config.tied_mlm)
        if "box" in wanted:
            self.box_head = mlp_head(text.width, 4)
        if "text_mlm" in wanted:
            self.text_mlm_head = MaskedLMHead(text.width, text.vocab_size, text.layer_norm_eps)
        self.visual_tokenizer: VisualTokenizer | None = None
        if "mim" in wanted and config.visual_tokenizer is not None:
            self.visual_tokenizer = VisualTokenizer(config.visual_tokenizer, vision.image_size, vision.stride)
            self.code_head = nn.Linear(vision.width, config.visual_tokenizer.codes)

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        return self.fusion.layers[0].get_parameter("mlp_norm.weight").dtype

    def stacks(self) -> list[Sequence[nn.Module]]:
        """The transformer blocks of each encoder, in order, those of the vision encoder first."""
        return [self.vision.blocks(), self.text.blocks(), self.fusion.blocks()]

    def blocks(self) -> list[nn.Module]:
        """All transformer blocks: the units that are compiled, recomputed or sharded by themselves."""
        return [block for stack in self.stacks() for block in stack]

    def encode_images(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] or clips [B, T, 3, H, W], bytes or normalised, to tokens [B, 1+N, D]; see
        `VisionEncoder.encode_images`."""
        images = normalize_images(images, self.dtype)
        if images.dim() == 4:
            return self.vision.encode_images(images)
        if self.frames is None:
            raise ValueError("This model has no frame embedding: set model.vision.frames to encode clips.")
        return self.frames(images, self.vision)

    def encode_masked_images(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Images [B, 3, H, W], bytes or normalised, without the patches that `hidden` [B, N] marks, to tokens [B, 1+N, D]."""
        return self.vision(normalize_images(images, self.dtype), hidden)

    def encode_regions(self, images: Tensor, image_index: Tensor, patch_mask: Tensor) -> tuple[Tensor, RegionViews]:
        """Images [B, 3, H, W], bytes or normalised, with regions of them; see `VisionEncoder.encode_regions`."""
        return self.vision.encode_regions(normalize_images(images, self.dtype), image_index, patch_mask)

    def encode_text(self, ids: Tensor, mask: Tensor, packing: Packing | None = None) -> Tensor:
        """Token ids [R, L] with mask [R, L] to states [R, L, H]; without computing padding where the packing is known."""
        if packing is None:
            return self.text(ids, mask)
        return packing.unpack(self.text(packing.pack(ids), packing.visible(), packing.positions()))

    def context(self, tokens: Tensor, regions: RegionViews | None = None, mask: Tensor | None = None) -> VisionContext:
        """Keys and values of all fusion layers for these images and regions, or for texts with their mask; see `Fusion.context`."""
        return self.fusion.context(tokens, regions, mask, self.config.savings.shared_context)

    def fuse(self, vision: VisionContext | None, passes: list[FusionPass]) -> list[Tensor]:
        """Run several passes over the same images as one batch; see `Fusion.forward`.

        Args:
            vision: keys and values; None skips cross-attention.
            passes: all with the same padded length.

        Returns:
            States of each pass: [M, L, H]; [M, 1, H], or more positions of which the first counts, where it is pooled.
        """
        savings = self.config.savings
        if not savings.needed_positions:
            passes = [item._replace(pooled=False) for item in passes]
        if not savings.one_fusion_call:
            return [self.fusion([item], vision)[0] for item in passes]
        return self.fusion(passes, vision)

    def image_features(self, global_tokens: Tensor) -> Tensor:
        """Contrastive features [.., E] of global vision tokens [.., D], of length 1."""
        return F.normalize(self.vision_proj(global_tokens), dim=-1)

    def text_features(self, states: Tensor) -> Tensor:
        """Contrastive features [R, E] of text states [R, L, H], of length 1."""
        return F.normalize(self.text_proj(states[:, 0]), dim=-1)

    def bounds(self) -> dict[str, tuple[float, float]]:
        """Least and greatest value of parameters, by name: the temperature may not drift out of reach of the gradient."""
        return {"temperature": TEMPERATURE_RANGE} if hasattr(self, "temperature") else {}

    def match_logits(self, fused: Tensor) -> Tensor:
        """Matching logits [M, 2] of fused states [M, L, H]; class 1 is a match."""
        return self.itm_head(fused[:, 0])

    def masked_lm_logits(self, fused: Tensor, positions: Tensor) -> Tensor:
        """Vocabulary logits [R, M, V] at `positions` [R, M] of fused states [R, L, H]."""
        if not self.config.savings.needed_positions:
            return _at(self.mlm_head(fused, self.text.embedding_weight), positions)
        return self.mlm_head(_at(fused, positions), self.text.embedding_weight)

    def text_masked_lm_logits(self, states: Tensor, positions: Tensor) -> Tensor:
        """Vocabulary logits [R, M, V] at `positions` [R, M] of states [R, L, H] of the text encoder alone."""
        return self.text_mlm_head(_at(states, positions), self.text.embedding_weight)

    def code_logits(self, tokens: Tensor) -> Tensor:
        """Logits [B, N, K] of the visual tokenizer's codes of tokens [B, 1+N, D]."""
        return self.code_head(tokens[:, 1:])

    def codes(self, images: Tensor) -> Tensor:
        """The visual tokenizer's codes [B, N] of images [B, 3, H, W], bytes or normalised."""
        assert self.visual_tokenizer is not None, "model.visual_tokenizer is set"
        return self.visual_tokenizer(normalize_images(images, self.dtype))

    def boxes(self, fused: Tensor) -> Tensor:
        """Boxes [M, 4] as relative centre x, centre y, width, height of fused states [M, L, H]."""
        logits = self.box_head(fused[:, 0])
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).sigmoid()


def build_vision(config: VisionSettings, hides_patches: bool = False) -> VisionEncoder:
    """The vision encoder of a configuration, freshly initialised.

    Raises:
        UserError: patches are to be hidden from an encoder that has no mask token.
    """
    if hides_patches and not isinstance(config, Beit2Config):
        kind = getattr(config, "kind", type(config).__name__)
        raise UserError(f"model.vision.kind: {kind} has no mask token, which the objective mim needs. Take beit2, or leave mim out.")
    if hides_patches and config.patch_dropout:
        raise UserError("model.vision.patch_dropout: the objective mim compares all patches. Leave one of the two out.")
    match config:
        case Beit2Config():
            return Beit2(config, hides_patches)
        case SwinConfig():
            return Swin(config)
        case ClipVitConfig():
            return ClipVit(config)
    raise TypeError(f"no vision encoder for {type(config).__name__}")


def build_text(config: TextConfig) -> TextEncoder:
    """The text encoder of a configuration, freshly initialised."""
    return Roberta(config) if config.kind == "roberta" else Bert(config)


def _at(states: Tensor, positions: Tensor) -> Tensor:
    """States [R, M, H] at `positions` [R, M] of [R, L, H]."""
    return states.gather(1, positions[:, :, None].expand(-1, -1, states.shape[2]))


@torch.no_grad()
def rescale(encoders: list[nn.Module], factor: float) -> None:
    """Multiply freshly initialised matrices and embeddings; the patch embedding is a convolution and keeps its own scale."""
    for encoder in encoders:
        for module in encoder.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                module.weight.mul_(factor)
