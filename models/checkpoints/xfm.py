"""Checkpoints of X-FM (arXiv 2301.05065): RoBERTa, BEiT-2 and a fusion encoder of RoBERTa's layers, each a network of its own.

What official files hold and nothing reads is left out: the captioning heads (`lm_cap_head`) and VQ-KD's decoder. Of the embeddings of the
fusion encoder those of words serve as the output matrix of its masked-LM head; the others are what a decoder starts from, and have no
other use.
"""

from torch import Tensor

from models.checkpoints.adapter import HeadCounts, Shapes
from models.checkpoints.bert_keys import (
    EMBEDDINGS,
    HEADS,
    Pairs,
    decoder_buffers,
    decoder_config,
    decoder_copies,
    decoder_keys,
    fusion_config,
    fusion_layers,
    position_ids,
    projection_dim,
    roberta_lm_head,
    stack_depth,
    text_config,
    text_layers,
    text_prefix,
)
from models.checkpoints.keys import KeyTable
from models.checkpoints.vision_keys import CHANNELS_PER_HEAD, DERIVED, vision_buffers, vision_config, vision_prefixes
from models.config import ModelConfig, VisualTokenizerConfig

TEXT = "text_encoder.roberta."
TEXTS = (TEXT, "text_encoder.")
FUSION = "fusion_encoder.roberta."
FUSIONS = (FUSION, "fusion_encoder.")
FUSION_EMBEDDINGS = "fusion_embeddings."
"""Our name of embeddings that no model here has."""
TOKENIZER = "vqkd."
TOKENIZER_KEYS: Pairs = (
    (f"{TOKENIZER}encoder.", "visual_tokenizer.encoder."),
    (f"{TOKENIZER}encode_task_layer.", "visual_tokenizer.projection."),
    (f"{TOKENIZER}quantize.embedding.weight", "visual_tokenizer.codebook"),
    ("lm_head.", "code_head."),
)


class Xfm:
    """`xfm_4m.th`, `xfm_1b3.th` and files fine-tuned from them."""

    name = "xfm"

    def recognises(self, shapes: Shapes) -> bool:
        """Whether a file has a fusion encoder under X-FM's name beside a text encoder."""
        return text_prefix(shapes) is not None and any(stack_depth(shapes, prefix) for prefix in FUSIONS)

    def config(self, shapes: Shapes, heads: HeadCounts) -> ModelConfig:
        """The model that a file with these tensors holds; heads of its visual tokenizer have the published 64 channels."""
        text = text_config(shapes, stack_depth(shapes, text_prefix(shapes) or TEXT), heads.text).model_copy(update={"kind": "roberta"})
        decoder = decoder_config(shapes)
        fusion_stack = next(prefix for prefix in FUSIONS if stack_depth(shapes, prefix))
        return ModelConfig(
            vision=vision_config(shapes, heads.vision),
            text=text,
            fusion=fusion_config(shapes, fusion_stack, 0, text, heads.fusion),
            decoder=decoder and decoder.model_copy(update={"embeddings_from": "output"}),
            projection_dim=projection_dim(shapes),
            learn_temperature="temp" in shapes or "text_proj.weight" not in shapes,
            tied_mlm=False,
            visual_tokenizer=_tokenizer_config(shapes),
        )

    def table(self, config: ModelConfig) -> KeyTable:
        """Names of the tensors of such a model."""
        texts = (pair for prefix in TEXTS for pair in text_layers(prefix, config.text.layers))
        fusions = (pair for prefix in FUSIONS for pair in fusion_layers(prefix, 0, config.fusion.layers))
        matrix, embedding = f"{FUSION}embeddings.word_embeddings.weight", f"{TEXT}embeddings.word_embeddings.weight"
        text_head, fusion_head = roberta_lm_head("text_encoder.", "text_mlm_head."), roberta_lm_head("fusion_encoder.", "mlm_head.")
        lm_heads = (*text_head, *fusion_head, (matrix, "mlm_head.decoder"))
        embeddings = ((f"{FUSION}embeddings.{official}", f"{FUSION_EMBEDDINGS}{ours}") for official, ours in EMBEDDINGS[1:])
        return KeyTable(
            (*vision_prefixes(config.vision), *texts, *fusions, *lm_heads, *embeddings, *decoder_keys(config), *TOKENIZER_KEYS, *HEADS),
            copies={
                **decoder_copies(config),
                "text_encoder.lm_head.decoder.weight": embedding,
                "text_encoder.lm_head.decoder.bias": "text_encoder.lm_head.bias",
                "fusion_encoder.lm_head.decoder.weight": matrix,
                "fusion_encoder.lm_head.decoder.bias": "fusion_encoder.lm_head.bias",
            },
            derived=DERIVED,
        )

    def buffers(self, config: ModelConfig) -> dict[str, Tensor]:
        """What official pre-training files hold beside weights."""
        return vision_buffers(config.vision) | position_ids(TEXT, config.text) | position_ids(FUSION, config.text) | decoder_buffers(config)


def _tokenizer_config(shapes: Shapes) -> VisualTokenizerConfig | None:
    """The visual tokenizer of a file that was trained to predict its codes (official `use_vision_tokenizer`)."""
    if f"{TOKENIZER}quantize.embedding.weight" not in shapes:
        return None
    width = shapes[f"{TOKENIZER}encoder.cls_token"][2]
    codes, code_width = shapes[f"{TOKENIZER}quantize.embedding.weight"]
    start = f"{TOKENIZER}encoder.blocks."
    depth = len({name.removeprefix(start).split(".", 1)[0] for name in shapes if name.startswith(start)})
    return VisualTokenizerConfig(width=width, depth=depth, heads=max(1, width // CHANNELS_PER_HEAD), codes=codes, code_width=code_width)
