"""Checkpoints of X-VLM (arXiv 2111.08276): Swin or CLIP-ViT under BERT's joint stack."""

from torch import Tensor

from models.checkpoints.adapter import HeadCounts, Shapes
from models.checkpoints.bert_keys import is_xlmr
from models.checkpoints.joint import is_joint, joint_buffers, joint_config, joint_table
from models.checkpoints.keys import KeyTable
from models.checkpoints.vision_keys import vision_kind
from models.config import ModelConfig


class Xvlm:
    """`4m_base_model_state_step_199999.th`, `16m_base_model_state_step_199999.th` and files fine-tuned from them.

    What pre-training files and files of fine-tuned models hold differs: the latter spell the text encoder's names without `bert.` and keep
    only the heads of their task.
    """

    name = "xvlm"

    def recognises(self, shapes: Shapes) -> bool:
        """Whether a file has a joint stack with BERT's tables over Swin or CLIP-ViT."""
        return is_joint(shapes) and not is_xlmr(shapes) and vision_kind(shapes) in ("swin", "clip_vit")

    def config(self, shapes: Shapes, heads: HeadCounts) -> ModelConfig:
        """The model that a file with these tensors holds."""
        return joint_config(shapes, heads)

    def table(self, config: ModelConfig) -> KeyTable:
        """Names of the tensors of such a model."""
        return joint_table(config)

    def buffers(self, config: ModelConfig) -> dict[str, Tensor]:
        """What official files hold beside weights."""
        return joint_buffers(config)
