"""Settings of a model: which encoders, how large, where their weights start from."""

from typing import Literal

from pydantic import model_validator

from common.settings import Settings


class VisionConfig(Settings):
    """A vision encoder. Only BEiT-2 exists so far."""

    kind: Literal["beit2"] = "beit2"
    image_size: int = 224
    """Side of the square input in pixels."""
    patch_size: int = 16
    """Side of a patch in pixels."""
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    layer_scale: float = 0.1
    """Initial value of LayerScale."""
    drop_path: float = 0.1
    """Stochastic depth of the last block; rises linearly from 0."""
    positions: Literal["relative", "absolute", "both"] = "relative"
    """BEiT-2 has relative position tables only, which suits pretrained weights. Small models trained from nothing learn faster with
    absolute positions, which start as 2D sines and cosines."""
    position_amplitude: float = 2.0
    """Amplitude of the sines and cosines. They must stand out beside the patch embedding: at 0.5 a small model does not learn to
    localise in its first thousand steps, at 2 it does."""
    frames: int | None = None
    """Number of frames of a clip; adds a learned embedding for each frame."""
    weights: str | None = None
    """A timm model name (downloaded by timm) or a local file in timm's or Microsoft's BEiT-2 layout."""

    @model_validator(mode="after")
    def _grid_is_whole(self) -> "VisionConfig":
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.positions != "relative" and self.width % 4:
            raise ValueError(f"absolute positions need a width that is a multiple of 4, not {self.width}")
        return self

    @property
    def patches(self) -> int:
        """Number of patches of an image."""
        return (self.image_size // self.patch_size) ** 2


class TextConfig(Settings):
    """A text encoder. Only BERT exists so far."""

    kind: Literal["bert"] = "bert"
    width: int = 768
    layers: int = 12
    heads: int = 12
    intermediate: int = 3072
    vocab_size: int = 30522
    max_positions: int = 512
    type_vocab_size: int = 2
    dropout: float = 0.1
    """Dropout of states and of attention probabilities, also in the fusion encoder."""
    layer_norm_eps: float = 1e-12
    weights: str | None = None
    """A transformers model name or a local folder; its first `layers` layers are taken."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "TextConfig":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class FusionConfig(Settings):
    """The cross-modal encoder; width, heads and dropout are the text encoder's."""

    layers: int = 6
    copy_text_layers: list[int] | None = None
    """Layers of the pretrained text model that the fusion layers start as copies of (self-attention and MLP; cross-attention starts
    random). Needs text.weights. X-VLM and X2-VLM base: [6, 7, 8, 9, 10, 11]."""

    @model_validator(mode="after")
    def _one_source_a_layer(self) -> "FusionConfig":
        if self.copy_text_layers is not None and len(self.copy_text_layers) != self.layers:
            raise ValueError(f"copy_text_layers names {len(self.copy_text_layers)} layers for {self.layers} fusion layers")
        return self


class ModelConfig(Settings):
    """A vision-language model of the X-VLM family."""

    vision: VisionConfig = VisionConfig()
    text: TextConfig = TextConfig()
    fusion: FusionConfig = FusionConfig()
    projection_dim: int = 256
    """Width of the contrastive features."""
    temperature: float = 0.07
    """Initial contrastive temperature (divides the similarities); learned, kept in [0.001, 0.5]."""
    initializer_std: float = 0.02
    """Standard deviation of freshly initialised matrices and embeddings of the encoders. BERT's and BEiT's 0.02 suits their width of 768;
    a narrow model wants about 1 / sqrt(width)."""
