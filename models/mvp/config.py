"""Settings of MVP. The defaults are the published base model: 12 heads of 64 channels, three stacks of 6 layers."""

import math
from typing import Literal

from pydantic import Field, model_validator

from common.settings import Settings
from models.config import FusionConfig, TextConfig
from models.mvp.learning import MvpLearning

__all__ = ["LARGEST_SCALE", "MvpConfig", "MvpLearning"]

LARGEST_SCALE = math.log(100.0)


class MvpConfig(Settings):
    """The encoders and heads of MVP (arXiv 2201.12596, section 3)."""

    width: int = 768
    heads: int = 12
    intermediate: int = 3072
    text_layers: int = 6
    """Over words and phrases."""
    vision_layers: int = 6
    """Over tags and regions."""
    joint_layers: int = 6
    """Over words, phrases and regions together."""
    vocab_size: int = 86_051
    """Rows of the embedding table that words, phrases and tags share. A phrase of one word has the id of that word."""
    words: int = 30_522
    """The first rows of the table; masked words and masked tags are predicted among these alone."""
    max_positions: int = 512
    type_vocab_size: int = 2
    pad_token_id: int = 0
    region_width: int = 2054
    """Numbers that describe a region: the detector's feature and x1, y1, x2, y2, width, height relative to the image."""
    region_norm: bool = True
    """Whether embedded regions pass a LayerNorm (official `use_img_layernorm`)."""
    joint: Literal["single", "cross"] = "single"
    """How texts and regions meet, see `ConceptEncoders`."""
    phrases: int | None = None
    """Phrases that hidden ones are predicted among; None: no such head."""
    qa_answers: int | None = None
    """Answers of the question answering head; None: no such head."""
    vqa_answers: int | None = None
    """Answers of a model that was fine-tuned on VQA v2, whose head reads the fused state of [CLS] itself; None: no such head."""
    temperature: float = Field(default=0.07, gt=0.0)
    """Initial contrastive temperature; the model learns the logarithm of its inverse."""
    tied_mlm: bool = True
    """Whether the two heads that predict words share the embedding table. The official code means them to, but gives each an output matrix
    of its own, which is what its files hold."""
    dropout: float = 0.1
    layer_norm_eps: float = 1e-12
    region_norm_eps: float = 1e-12

    @model_validator(mode="after")
    def _sizes_fit(self) -> "MvpConfig":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.words > self.vocab_size:
            raise ValueError(f"words {self.words} are more than the {self.vocab_size} rows of the embedding table (vocab_size)")
        if self.type_vocab_size < 2:
            raise ValueError("type_vocab_size must be at least 2: texts have type 0, tags type 1")
        return self

    @property
    def layer(self) -> TextConfig:
        """The sizes that every BERT layer of the model has."""
        return TextConfig(
            width=self.width,
            heads=self.heads,
            intermediate=self.intermediate,
            vocab_size=self.vocab_size,
            max_positions=self.max_positions,
            type_vocab_size=self.type_vocab_size,
            pad_token_id=self.pad_token_id,
            dropout=self.dropout,
            layer_norm_eps=self.layer_norm_eps,
        )

    @property
    def cross(self) -> FusionConfig:
        """The joint encoder's sizes where it is made of cross-attention."""
        return FusionConfig(layers=self.joint_layers)
