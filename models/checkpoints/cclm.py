"""Checkpoints of CCLM (arXiv 2206.00621): the first release, and the models on X2-VLM's weights."""

from collections.abc import Mapping

from torch import Tensor

from models.checkpoints.adapter import HeadCounts, Shapes
from models.checkpoints.bert_keys import (
    BERT,
    HEADS,
    decoder_buffers,
    decoder_config,
    decoder_copies,
    decoder_keys,
    fusion_config,
    fusion_layers,
    is_xlmr,
    learns_temperature,
    masked_lm_head,
    position_ids,
    projection_dim,
    stack_depth,
    text_config,
    text_layers,
    text_prefix,
)
from models.checkpoints.joint import is_joint, joint_buffers, joint_config, joint_table
from models.checkpoints.keys import KeyTable
from models.checkpoints.vision_keys import CHANNELS_PER_HEAD, DERIVED, vision_buffers, vision_config, vision_prefixes
from models.config import ModelConfig

TEXT = "text_encoder."
TEXTS = (TEXT, "text_encoder.bert.", "text_encoder.roberta.")
FUSION = "cross_encoder."
FUSIONS = (FUSION, "cross_encoder.bert.")
HEAD = "mlm_head."


class CclmV1:
    """`cclm_3m_epoch_29.th`, `cclm_4m_epoch_29.th` and files fine-tuned from them.

    XLM-R's weights in X-VLM's joint stack: positions count from 0, not from behind the padding id as XLM-R was trained.
    """

    name = "cclm"

    def recognises(self, shapes: Shapes) -> bool:
        """Whether a file has X-VLM's joint stack with XLM-R's tables."""
        return is_joint(shapes) and is_xlmr(shapes)

    def config(self, shapes: Shapes, heads: HeadCounts) -> ModelConfig:
        """The model that a file with these tensors holds."""
        return joint_config(shapes, heads)

    def table(self, config: ModelConfig) -> KeyTable:
        """Names of the tensors of such a model."""
        return joint_table(config)

    def buffers(self, config: ModelConfig) -> dict[str, Tensor]:
        """What official files hold beside weights."""
        return joint_buffers(config)


class SplitX2vlm:
    """`cclm_x2vlm_base.th`, `cclm_x2vlm_large.th` and other models of X2-VLM's classes CrossViewLM and XVLMPlus.

    A text encoder (XLM-R, RoBERTa or BERT), a fusion encoder of BERT layers without embeddings, and a masked-LM head with an output matrix
    of its own.
    """

    name = "cclm_x2vlm"

    def recognises(self, shapes: Shapes) -> bool:
        """Whether a file has a fusion encoder of its own beside a text encoder."""
        return text_prefix(shapes) is not None and any(stack_depth(shapes, prefix) for prefix in FUSIONS)

    def config(self, shapes: Shapes, heads: HeadCounts) -> ModelConfig:
        """The model that a file with these tensors holds."""
        text_stack = text_prefix(shapes) or TEXT
        fusion_stack = next(prefix for prefix in FUSIONS if stack_depth(shapes, prefix))
        text = text_config(shapes, stack_depth(shapes, text_stack), heads.text)
        if is_xlmr(shapes):
            text = text.model_copy(update={"kind": "roberta"})
        fusion = fusion_config(shapes, fusion_stack, 0, text, heads.fusion or max(1, text.width // CHANNELS_PER_HEAD))
        eps = BERT["layer_norm_eps"]
        decoder = decoder_config(shapes)
        return ModelConfig(
            vision=vision_config(shapes, heads.vision),
            text=text,
            fusion=fusion.model_copy(update={"layer_norm_eps": None if eps == text.layer_norm_eps else eps}),
            decoder=decoder and decoder.model_copy(update={"embeddings_from": "nothing"}),
            projection_dim=projection_dim(shapes),
            learn_temperature=learns_temperature(shapes),
            tied_mlm=False,
        )

    def table(self, config: ModelConfig) -> KeyTable:
        """Names of the tensors of such a model."""
        texts = (pair for prefix in TEXTS for pair in text_layers(prefix, config.text.layers))
        fusions = (pair for prefix in FUSIONS for pair in fusion_layers(prefix, 0, config.fusion.layers))
        matrix = (f"{HEAD}predictions.decoder.weight", "mlm_head.decoder")
        return KeyTable(
            (*vision_prefixes(config.vision), *texts, *fusions, *masked_lm_head(HEAD), matrix, *decoder_keys(config), *HEADS),
            copies={**decoder_copies(config), f"{HEAD}predictions.decoder.bias": f"{HEAD}predictions.bias"},
            derived=DERIVED,
        )

    def buffers(self, config: ModelConfig) -> dict[str, Tensor]:
        """What official files hold beside weights."""
        return vision_buffers(config.vision) | position_ids(TEXT, config.text) | decoder_buffers(config)


def without_text_encoder(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a model with another text encoder starts from, of a model that was trained with BERT (official
    `replace_text_encoder`).

    Because joint and split models have the same names here, all that must go are the text encoder and, with its vocabulary, the bias and
    output matrix of the masked-LM head.

    Args:
        tensors: of an X2-VLM model by our names.

    Returns:
        The tensors that stay: vision, fusion, projections, heads, and the masked-LM head's transform.
    """
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(("text.", "mlm_head.bias", "mlm_head.decoder"))}
