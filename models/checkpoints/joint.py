"""Official models with one BERT stack whose last layers are the fusion encoder: X-VLM, X2-VLM and CCLM v1.

Pre-training files keep the stack under `text_encoder.bert.` beside the masked-LM head `text_encoder.cls.`, which is tied to the word
embeddings; fine-tuned files without that head keep it under `text_encoder.`, X-VLM's captioning files, head and all, under
`text_decoder.`. All spellings are read, the first is written.
"""

from torch import Tensor

from models.checkpoints.adapter import HeadCounts, Shapes
from models.checkpoints.bert_keys import (
    CAPTIONER,
    DECODER_HEAD,
    HEADS,
    decoder_buffers,
    decoder_config,
    decoder_copies,
    decoder_keys,
    first_fusion_layer,
    fusion_config,
    fusion_layers,
    learns_temperature,
    masked_lm_head,
    position_ids,
    projection_dim,
    stack_depth,
    text_config,
    text_layers,
    text_prefix,
)
from models.checkpoints.keys import KeyTable
from models.checkpoints.vision_keys import DERIVED, vision_buffers, vision_config, vision_prefixes
from models.config import ModelConfig

STACK = "text_encoder.bert."
STACKS = (STACK, "text_encoder.", CAPTIONER)
HEAD = "text_encoder.cls."


def is_joint(shapes: Shapes) -> bool:
    """Whether a file holds a stack of text layers followed by layers with cross-attention."""
    prefix = text_prefix(shapes)
    return prefix in STACKS and 0 < first_fusion_layer(shapes, prefix) < stack_depth(shapes, prefix)


def joint_config(shapes: Shapes, heads: HeadCounts) -> ModelConfig:
    """The model of a file with a joint stack; what no shape tells of the text encoder follows from its number of token types."""
    prefix = text_prefix(shapes) or STACK
    first = first_fusion_layer(shapes, prefix)
    text = text_config(shapes, first, heads.text)
    return ModelConfig(
        vision=vision_config(shapes, heads.vision),
        text=text,
        fusion=fusion_config(shapes, prefix, first, text, heads.fusion),
        decoder=decoder_config(shapes),
        projection_dim=projection_dim(shapes),
        learn_temperature=learns_temperature(shapes),
    )


def joint_table(config: ModelConfig) -> KeyTable:
    """Names of the tensors of a model with a joint stack."""
    text, fusion = config.text.layers, config.fusion.layers
    spellings = STACKS if config.decoder is None else STACKS[:2]
    stacks = (pair for prefix in spellings for pair in (*text_layers(prefix, text), *fusion_layers(prefix, text, fusion)))
    writer = masked_lm_head(DECODER_HEAD) if config.decoder is None else decoder_keys(config)
    output, words = f"{DECODER_HEAD}predictions", f"{CAPTIONER}embeddings.word_embeddings.weight"
    writer_copies = {f"{output}.decoder.weight": words, f"{output}.decoder.bias": f"{output}.bias"}
    return KeyTable(
        (*vision_prefixes(config.vision), *stacks, *masked_lm_head(HEAD), *writer, *HEADS),
        copies={
            **(writer_copies if config.decoder is None else decoder_copies(config)),
            f"{HEAD}predictions.decoder.weight": f"{STACK}embeddings.word_embeddings.weight",
            f"{HEAD}predictions.decoder.bias": f"{HEAD}predictions.bias",
        },
        derived=DERIVED,
    )


def joint_buffers(config: ModelConfig) -> dict[str, Tensor]:
    """What official pre-training files hold beside weights, under official names."""
    return vision_buffers(config.vision) | position_ids(STACK, config.text) | decoder_buffers(config)
