"""What a recipe says of MVP: its encoders beside those of every model, and how its objectives choose and compare."""

from typing import Annotated, Literal

from pydantic import Field

from common.settings import Settings

Candidates = Literal["random", "mean", "max"]
"""Which of a phrase's three best regions in an image says how well it is found there. random: one of them, drawn anew each time, so that
more than one region is taught (as published). mean: all three alike. max: the best."""


class MvpLearning(Settings):
    """How MVP's objectives choose negatives and compare phrases with regions (section 3.3)."""

    negatives: Literal["hardest", "sampled"] = "hardest"
    """What a pair is made wrong with: the most similar other row, or one drawn likelier the more similar it is (as in X-VLM)."""
    grounding: Literal["sample", "hard"] = "sample"
    """Which wrong image a phrase is compared with: any other one, encoded with its own text; or the wrong pair of the matching loss."""
    grounding_layer: int = -1
    """The layer of the joint encoder whose states are compared, from 0; negative counts from the last."""
    candidates: Candidates = "random"
    """See there."""
    margin: float = Field(default=0.2, ge=0.0)
    """By how much the right image must win."""


class ConceptEncoders(Settings):
    """MVP (arXiv 2201.12596) over the vision encoder's feature map. `model.text` says the width, the layers of the text encoder and the
    words, `model.fusion` the layers of the joint encoder; features for contrast are as wide as texts."""

    vision_layers: Annotated[int, Field(ge=1)] = 6
    """Of the encoder over tags and regions."""
    vocab_size: Annotated[int, Field(ge=1)] = 86_051
    """Rows of the embedding table that words, tags and phrases share: the tokenizer's entries and the phrases' ids."""
    phrases: Annotated[int, Field(ge=1)] | None = None
    """Phrases of the vocabulary, or more; the objective phrases needs it."""
    joint: Literal["single", "cross"] = "single"
    """single: texts and regions in one stream, where regions are updated (as published). cross: texts attend to regions, which stay as they
    are, as in X-VLM; phrases are then compared with regions that no text has touched."""
    region_features: Annotated[int, Field(ge=1)] | None = None
    """Numbers of a region in a file (2054 in published ones), where regions are not pooled from pixels; there is no vision encoder then."""
    region_norm: bool = True
    """Whether embedded regions pass a LayerNorm."""
    freeze_vision: bool = False
    """Whether the vision encoder stays as it starts."""
    learning: MvpLearning = MvpLearning()
