"""BERT stacks in official checkpoints: the names of their layers in ours, and their sizes, told from shapes."""

from collections.abc import Iterable

import torch
from torch import Tensor

from models.checkpoints.adapter import Shapes
from models.checkpoints.vision_keys import CHANNELS_PER_HEAD, FRAMES
from models.config import DecoderConfig, FusionConfig, ModelConfig, TextConfig
from models.decoder import decoder_text

Pairs = tuple[tuple[str, str], ...]
"""(official, ours) beginnings of names."""

FUSION_LAYER: Pairs = (
    ("attention.self.", "self_attention."),
    ("attention.output.dense.", "self_attention.output."),
    ("attention.output.LayerNorm.", "self_attention_norm."),
    ("crossattention.self.", "cross_attention."),
    ("crossattention.output.dense.", "cross_attention.output."),
    ("crossattention.output.LayerNorm.", "cross_attention_norm."),
    ("intermediate.dense.", "mlp_in."),
    ("output.dense.", "mlp_out."),
    ("output.LayerNorm.", "mlp_norm."),
)
"""Names within one layer of the fusion encoder."""

HEADS: Pairs = (
    (FRAMES, "frames.positions"),
    ("vision_proj.", "vision_proj."),
    ("text_proj.", "text_proj."),
    ("temp", "temperature"),
    ("itm_head.", "itm_head."),
    ("bbox_head.", "box_head."),
    ("cls_head.", "cls_head."),
    ("ta_head.", "ta_head."),
)
"""What the models of X-VLM, X2-VLM and CCLM have beside their encoders, the masked-LM head and the decoder."""

DECODER_HEAD = "text_decoder.cls."
DECODERS = ("text_decoder.bert.", "text_decoder.roberta.")
"""How official files of question answering begin the names of their decoder."""
EMBEDDINGS: Pairs = (
    ("word_embeddings.", "words."),
    ("position_embeddings.", "positions."),
    ("token_type_embeddings.", "types."),
    ("LayerNorm.", "norm."),
)
"""Names within the decoder's embeddings."""

CAPTIONER = "text_decoder.bert."
"""How X-VLM's captioning files begin the names of their joint stack, which is the whole of their text side."""
TEXT_SPELLINGS = ("text_encoder.bert.", "text_encoder.roberta.", "text_encoder.")
"""How official files begin the names of the text encoder: with a masked-LM head in the same module, and without."""

BERT = {"pad_token_id": 0, "layer_norm_eps": 1e-12}
"""What no shape tells of BERT's text encoders."""
XLMR = {"pad_token_id": 1, "layer_norm_eps": 1e-5}
"""What no shape tells of RoBERTa's and XLM-R's."""


def text_layers(prefix: str, count: int) -> Pairs:
    """Embeddings and the first `count` layers of the text encoder under an official prefix such as "text_encoder.bert."."""
    layers = ((f"{prefix}encoder.layer.{index}.", f"text.backbone.encoder.layer.{index}.") for index in range(count))
    return ((f"{prefix}embeddings.", "text.backbone.embeddings."), *layers)


def fusion_layers(prefix: str, first: int, count: int, ours_prefix: str = "fusion.") -> Pairs:
    """The fusion encoder: `count` layers from number `first` on of the stack under an official prefix such as "cross_encoder."."""
    return tuple(
        (f"{prefix}encoder.layer.{first + index}.{official}", f"{ours_prefix}layers.{index}.{ours}")
        for index in range(count)
        for official, ours in FUSION_LAYER
    )


def masked_lm_head(prefix: str, ours: str = "mlm_head.") -> Pairs:
    """BERT's masked-LM head under an official prefix such as "text_encoder.cls."; without an output matrix."""
    return (
        (f"{prefix}predictions.transform.dense.", f"{ours}dense."),
        (f"{prefix}predictions.transform.LayerNorm.", f"{ours}norm."),
        (f"{prefix}predictions.bias", f"{ours}bias"),
    )


def roberta_lm_head(official: str, ours: str) -> Pairs:
    """RoBERTa's masked-LM head, without an output matrix."""
    return (
        (f"{official}lm_head.dense.", f"{ours}dense."),
        (f"{official}lm_head.layer_norm.", f"{ours}norm."),
        (f"{official}lm_head.bias", f"{ours}bias"),
    )


def decoder_config(shapes: Shapes) -> DecoderConfig | None:
    """The decoder of a file that was fine-tuned to answer questions; None: it has none."""
    prefix = next((prefix for prefix in DECODERS if stack_depth(shapes, prefix)), None)
    if prefix is None or text_prefix(shapes) == CAPTIONER:
        return None
    return DecoderConfig(
        layers=stack_depth(shapes, prefix),
        positions="bert" if prefix == DECODERS[0] else "roberta",
        max_positions=shapes[f"{prefix}embeddings.position_embeddings.weight"][0],
        type_vocab_size=shapes[f"{prefix}embeddings.token_type_embeddings.weight"][0],
    )


def decoder_keys(config: ModelConfig) -> Pairs:
    """Names of the decoder of such a model."""
    text = decoder_text(config)
    prefix = DECODERS[text.kind == "roberta"]
    head = roberta_lm_head("text_decoder.", "decoder.head.") if text.kind == "roberta" else masked_lm_head(DECODER_HEAD, "decoder.head.")
    embeddings = ((f"{prefix}embeddings.{official}", f"decoder.embeddings.{ours}") for official, ours in EMBEDDINGS)
    return (*fusion_layers(prefix, 0, text.layers, "decoder."), *embeddings, *head)


def decoder_copies(config: ModelConfig) -> dict[str, str]:
    """Tensors of the decoder that official files hold twice."""
    kind = decoder_text(config).kind
    head = "text_decoder.lm_head" if kind == "roberta" else f"{DECODER_HEAD}predictions"
    words = f"{DECODERS[kind == 'roberta']}embeddings.word_embeddings.weight"
    return {f"{head}.decoder.weight": words, f"{head}.decoder.bias": f"{head}.bias"}


def decoder_buffers(config: ModelConfig) -> dict[str, Tensor]:
    """The buffer that official decoders carry; empty for a model without one."""
    if config.decoder is None:
        return {}
    text = decoder_text(config)
    return position_ids(DECODERS[text.kind == "roberta"], text)


def text_prefix(shapes: Iterable[str]) -> str | None:
    """How a file spells the beginning of the text encoder's names; None: it has none."""
    names = set(shapes)
    return next((prefix for prefix in (*TEXT_SPELLINGS, CAPTIONER) if f"{prefix}embeddings.word_embeddings.weight" in names), None)


def is_xlmr(shapes: Shapes) -> bool:
    """Whether the text encoder's tables are those of RoBERTa or XLM-R, which have one token type to BERT's two."""
    prefix = text_prefix(shapes)
    return prefix is not None and shapes[f"{prefix}embeddings.token_type_embeddings.weight"][0] == 1


def stack_depth(names: Iterable[str], prefix: str) -> int:
    """Number of layers of the stack under an official prefix."""
    start = f"{prefix}encoder.layer."
    return 1 + max((int(name.removeprefix(start).split(".", 1)[0]) for name in names if name.startswith(start)), default=-1)


def first_fusion_layer(names: Iterable[str], prefix: str) -> int:
    """Number of the first layer with cross-attention of the stack under an official prefix; its depth where there is none."""
    present = set(names)
    depth = stack_depth(present, prefix)
    crossing = (index for index in range(depth) if f"{prefix}encoder.layer.{index}.crossattention.self.query.weight" in present)
    return next(crossing, depth)


def text_config(shapes: Shapes, layers: int, heads: int | None) -> TextConfig:
    """A text encoder in BERT's stack, whose positions start at 0; with the tables of BERT or of XLM-R.

    Args:
        shapes: of a file's tensors by official names; must hold a text encoder (`text_prefix`).
        layers: how many there are before the fusion layers.
        heads: None for the published 64 channels a head.
    """
    prefix = text_prefix(shapes)
    vocab_size, width = shapes[f"{prefix}embeddings.word_embeddings.weight"]
    sizes = TextConfig(
        width=width,
        layers=layers,
        heads=heads or max(1, width // CHANNELS_PER_HEAD),
        intermediate=shapes[f"{prefix}encoder.layer.0.intermediate.dense.weight"][0],
        vocab_size=vocab_size,
        max_positions=shapes[f"{prefix}embeddings.position_embeddings.weight"][0],
        type_vocab_size=shapes[f"{prefix}embeddings.token_type_embeddings.weight"][0],
    )
    return sizes.model_copy(update=XLMR if is_xlmr(shapes) else BERT)


def fusion_config(shapes: Shapes, prefix: str, first: int, text: TextConfig, heads: int | None) -> FusionConfig:
    """The fusion encoder in the stack under an official prefix, from layer `first` on; what equals the text encoder's is left to it."""
    intermediate = shapes[f"{prefix}encoder.layer.{first}.intermediate.dense.weight"][0]
    return FusionConfig(
        layers=stack_depth(shapes, prefix) - first,
        heads=None if heads == text.heads else heads,
        intermediate=None if intermediate == text.intermediate else intermediate,
    )


def projection_dim(shapes: Shapes) -> int:
    """Width of the contrastive features; the published 256 where a file has none."""
    return shapes["text_proj.weight"][0] if "text_proj.weight" in shapes else 256


def learns_temperature(shapes: Shapes) -> bool:
    """Whether the contrastive temperature is a weight: a fixed one (official `fix_temp`) is not in the file."""
    return "temp" in shapes or "text_proj.weight" not in shapes


def position_ids(prefix: str, text: TextConfig) -> dict[str, Tensor]:
    """The buffer that official text encoders carry."""
    return {f"{prefix}embeddings.position_ids": torch.arange(text.max_positions)[None]}
