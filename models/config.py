"""Settings of a model: which encoders, how large, where their weights start from."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from common.settings import Settings
from models.mvp.learning import ConceptEncoders


class VisionSettings(Settings):
    """What all vision encoders have in common."""

    image_size: int = 224
    """Side of the square input in pixels."""
    width: int = 768
    """Of the tokens that the encoder gives."""
    drop_path: float = 0.1
    """Stochastic depth of the last block; rises linearly from 0."""
    frames: int | None = None
    """Number of frames of a clip; adds a learned embedding for each frame."""
    temporal: Literal["mean", "attention"] = "mean"
    """How the frames of a clip become one. mean: their average, which does not know their order (X2-VLM, and all released weights).
    attention: a transformer block over time comes before the average. It starts as the average, so released weights may be started from
    with initialize.allow_missing: ["frames.temporal*"]."""
    patch_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of an image's patches that training leaves out, at random for each image (FLIP, arXiv 2212.00794); never where regions are
    described. Not for Swin, nor for BEiT-2's relative positions, whose tables are of whole images."""
    weights: str | None = None
    """Where the encoder's weights start from: a name of its library (downloaded) or a local file in a layout it was published in."""

    @property
    def stride(self) -> int:
        """Side of a visual token in pixels."""
        raise NotImplementedError

    @property
    def grid(self) -> int:
        """Visual tokens along one side of the image."""
        return self.image_size // self.stride

    @property
    def patches(self) -> int:
        """Number of visual tokens of an image, without the global one."""
        return self.grid**2


class Beit2Config(VisionSettings):
    """BEiT-2 (X2-VLM, X-FM)."""

    kind: Literal["beit2"] = "beit2"
    patch_size: int = 16
    """Side of a patch in pixels."""
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    layer_scale: float = 0.1
    """Initial value of LayerScale."""
    positions: Literal["relative", "absolute", "both"] = "relative"
    """BEiT-2 has relative position tables only, which suits pretrained weights. Small models trained from nothing learn faster with
    absolute positions, which start as 2D sines and cosines."""
    position_amplitude: float = 2.0
    """Amplitude of the sines and cosines. They must stand out beside the patch embedding: at 0.5 a small model does not learn to
    localise in its first thousand steps, at 2 it does."""

    @property
    def stride(self) -> int:
        """Side of a visual token in pixels."""
        return self.patch_size

    @model_validator(mode="after")
    def _grid_is_whole(self) -> "Beit2Config":
        _check_grid(self.image_size, self.patch_size, self.width, self.heads)
        if self.patch_dropout and self.positions != "absolute":
            raise ValueError("patch_dropout needs positions: absolute; relative position tables are of whole images")
        if self.positions != "relative" and self.width % 4:
            raise ValueError(f"absolute positions need a width that is a multiple of 4, not {self.width}")
        return self


class SwinConfig(VisionSettings):
    """Swin transformer (X-VLM, CCLM); `width` is that of the last stage and follows from `embed_dim`."""

    kind: Literal["swin"] = "swin"
    width: int = 1024
    patch_size: int = 4
    """Side of the patches of the first stage in pixels; every later stage doubles it."""
    embed_dim: int = 128
    depths: tuple[int, ...] = (2, 2, 18, 2)
    heads: tuple[int, ...] = (4, 8, 16, 32)
    window: int = 7
    """Side of an attention window in tokens: 7 at 224 pixels, 12 at 384, 15 at 480."""
    mlp_ratio: float = 4.0

    @property
    def stride(self) -> int:
        """Side of a visual token in pixels."""
        return self.patch_size * 2 ** (len(self.depths) - 1)

    @model_validator(mode="after")
    def _stages_fit(self) -> "SwinConfig":
        if self.patch_dropout:
            raise ValueError("swin has windows of whole images: leave patch_dropout out")
        if len(self.depths) != len(self.heads):
            raise ValueError(f"depths names {len(self.depths)} stages, heads {len(self.heads)}")
        if self.width != self.embed_dim * 2 ** (len(self.depths) - 1):
            raise ValueError(f"width {self.width} is not embed_dim {self.embed_dim} doubled {len(self.depths) - 1} times")
        if self.image_size % self.stride:
            raise ValueError(f"image_size {self.image_size} is not a multiple of {self.stride}, the side of a token of the last stage")
        return self


class ClipVitConfig(VisionSettings):
    """CLIP's vision transformer (X-VLM)."""

    kind: Literal["clip_vit"] = "clip_vit"
    drop_path: float = 0.0
    """Must be 0: CLIP trains without stochastic depth."""
    patch_size: int = 16
    """Side of a patch in pixels."""
    depth: int = 12
    heads: int = 12
    intermediate: int = 3072
    local_depth: int = 4
    """How many of the last layers see a region's own patches alone (X-VLM section 3.1)."""

    @property
    def stride(self) -> int:
        """Side of a visual token in pixels."""
        return self.patch_size

    @model_validator(mode="after")
    def _grid_is_whole(self) -> "ClipVitConfig":
        _check_grid(self.image_size, self.patch_size, self.width, self.heads)
        if self.drop_path:
            raise ValueError("clip_vit has no stochastic depth: leave drop_path out")
        if not 0 < self.local_depth <= self.depth:
            raise ValueError(f"local_depth {self.local_depth} is not between 1 and depth {self.depth}")
        return self


VisionConfig = Annotated[Beit2Config | SwinConfig | ClipVitConfig, Field(discriminator="kind")]


def _check_grid(image_size: int, patch_size: int, width: int, heads: int) -> None:
    if image_size % patch_size:
        raise ValueError(f"image_size {image_size} is not a multiple of patch_size {patch_size}")
    if width % heads:
        raise ValueError(f"width {width} is not a multiple of heads {heads}")


class TextConfig(Settings):
    """A text encoder of BERT's shape."""

    kind: Literal["bert", "roberta"] = "bert"
    """roberta: RoBERTa and XLM-R, whose positions skip padding and start behind its id. XLM-R weights in the BERT stack of the published
    CCLM checkpoints are `bert`: their positions start at 0."""
    width: int = 768
    layers: int = 12
    heads: int = 12
    intermediate: int = 3072
    vocab_size: int = 30522
    max_positions: int = 512
    type_vocab_size: int = 2
    pad_token_id: int = 0
    dropout: float = 0.1
    """Dropout of states and of attention probabilities, also in the fusion encoder."""
    layer_norm_eps: float = 1e-12
    weights: str | None = None
    """A transformers model name or a local folder, of BERT, RoBERTa or XLM-R."""
    weight_layers: list[int] | None = None
    """Which layers of the pretrained model the text layers start from; None: its first ones. CCLM takes every other layer of XLM-R large:
    [1, 3, 5, 7, 9, 11] here and [13, 15, 17, 19, 21, 23] for fusion.copy_text_layers."""

    @property
    def max_tokens(self) -> int:
        """Longest text: RoBERTa's positions begin behind the padding id, the rows before are lost."""
        return self.max_positions - (self.pad_token_id + 1 if self.kind == "roberta" else 0)

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "TextConfig":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self

    @model_validator(mode="after")
    def _one_source_a_layer(self) -> "TextConfig":
        if self.weight_layers is not None and len(self.weight_layers) != self.layers:
            raise ValueError(f"weight_layers names {len(self.weight_layers)} layers for {self.layers} text layers")
        return self


class FusionConfig(Settings):
    """The cross-modal encoder; its width and dropout are the text encoder's."""

    layers: int = 6
    heads: int | None = None
    """None: as the text encoder."""
    intermediate: int | None = None
    """None: as the text encoder."""
    layer_norm_eps: float | None = None
    """None: as the text encoder. Fusion layers from BERT over an XLM-R text encoder have 1e-12."""
    copy_text_layers: list[int] | None = None
    """Layers of the pretrained text model that the fusion layers start as copies of (self-attention and MLP; cross-attention starts
    random). Needs text.weights. X-VLM and X2-VLM base: [6, 7, 8, 9, 10, 11]."""

    @model_validator(mode="after")
    def _one_source_a_layer(self) -> "FusionConfig":
        if self.copy_text_layers is not None and len(self.copy_text_layers) != self.layers:
            raise ValueError(f"copy_text_layers names {len(self.copy_text_layers)} layers for {self.layers} fusion layers")
        return self


class VisualTokenizerConfig(Settings):
    """VQ-KD of BEiT-2 (arXiv 2208.06366): a frozen network that gives each patch one of a number of codes. Its resolution and patches are
    the vision encoder's."""

    width: int = 768
    depth: int = 12
    heads: int = 12
    codes: int = 8192
    """Entries of the codebook."""
    code_width: int = 32
    """Width of an entry."""
    normalised_input: bool = True
    """X-FM's code hands the tokenizer images that are already normalised, as if they were bytes; what was trained with it needs the same.
    False: pixels as the tokenizer was trained on them."""
    weights: str | None = None
    """A local file of VQ-KD; needed unless the run starts from a checkpoint that holds the tokenizer."""


class Savings(Settings):
    """Ways of computing less for the same losses and gradients. Each may be turned off to measure what it saves: `run.py bench --compare
    model.savings.shared_context=true,false`."""

    shared_context: bool = True
    """Keys and values of an image are projected once for all passes over it and all its regions; false: anew for each row of each pass."""
    one_fusion_call: bool = True
    """All passes of a stream go through the fusion encoder as one batch; false: one after the other."""
    needed_positions: bool = True
    """The last fusion layer computes position 0 alone for matching and boxes, and the masked-LM head the hidden positions alone; false:
    all positions."""
    batched_negatives: bool = True
    """Hard negatives are drawn for all rows at once, on the device; false: row by row, the host waiting for each."""


EmbeddingsFrom = Literal["text", "output", "nothing"]


class DecoderConfig(Settings):
    """A left-to-right decoder over fused texts; width, heads and vocabulary are those of the encoders, and so is what is null here."""

    layers: int | None = None
    """Number of layers; null: as many as the fusion encoder has. Half as many start from every other one of its layers."""
    positions: Literal["bert", "roberta"] | None = None
    """Where positions start: at 0, or behind the padding id. Models with a fusion encoder of BERT layers over XLM-R have bert."""
    max_positions: int | None = None
    type_vocab_size: int | None = None
    embeddings_from: EmbeddingsFrom = "text"
    """What embeddings and head start from, where a checkpoint holds no decoder. text: the text encoder's embeddings and the masked-LM head
    (X-VLM, X2-VLM, CCLM). output: the output matrix of that head as word embeddings, and what
    else of embeddings the fusion encoder has (X-FM). nothing: they start fresh (the published code
    of CCLM on X2-VLM)."""


class ModelConfig(Settings):
    """A vision-language model of the X-VLM family."""

    vision: VisionConfig = Beit2Config()
    text: TextConfig = TextConfig()
    fusion: FusionConfig = FusionConfig()
    decoder: DecoderConfig | None = None
    """Only tasks that write texts have one; null: as the encoders."""
    projection_dim: int = 256
    """Width of the contrastive features."""
    temperature: float = 0.07
    """Initial contrastive temperature (divides the similarities); learned, kept in [0.001, 0.5]."""
    learn_temperature: bool = True
    """False: the temperature stays what it is."""
    tied_mlm: bool = True
    """Whether the masked-LM head over the fusion encoder shares the text encoder's word embeddings (X-VLM, X2-VLM) or has an output
    matrix of its own (CCLM on X2-VLM, X-FM)."""
    visual_tokenizer: VisualTokenizerConfig | None = None
    """Masked image modelling predicts the codes of this tokenizer; null: the tokens that the vision encoder gives for the whole image
    (X-FM)."""
    mvp: ConceptEncoders | None = None
    """MVP's encoders in the place of the X-VLM family's; streams of kind concepts train them."""
    savings: Savings = Savings()
    initializer_std: float = 0.02
    """Standard deviation of freshly initialised matrices and embeddings of the encoders. BERT's and BEiT's 0.02 suits their width of 768;
    a narrow model wants about 1 / sqrt(width)."""

    @model_validator(mode="before")
    @classmethod
    def _vision_kind(cls, values: Any) -> Any:
        """Without a kind, `vision` means BEiT-2."""
        if isinstance(values, dict) and isinstance(values.get("vision"), dict) and "kind" not in values["vision"]:
            return {**values, "vision": {"kind": "beit2", **values["vision"]}}
        return values
