"""Checkpoints of X2-VLM (arXiv 2211.12402): BEiT-2 under BERT's joint stack of 12 text and 6 fusion layers."""

from torch import Tensor

from models.checkpoints.adapter import HeadCounts, Shapes
from models.checkpoints.bert_keys import is_xlmr
from models.checkpoints.joint import is_joint, joint_buffers, joint_config, joint_table
from models.checkpoints.keys import KeyTable
from models.checkpoints.vision_keys import vision_kind
from models.config import ModelConfig


class X2vlm:
    """`x2vlm_{base,large}_{4m,1b}.th` and files fine-tuned from them.

    Files of the second stage, which also saw clips, hold an embedding for each frame; a model for images leaves it aside.
    """

    name = "x2vlm"

    def recognises(self, shapes: Shapes) -> bool:
        """Whether a file has a joint stack with BERT's tables over BEiT-2."""
        return is_joint(shapes) and not is_xlmr(shapes) and vision_kind(shapes) == "beit2"

    def config(self, shapes: Shapes, heads: HeadCounts) -> ModelConfig:
        """The model that a file with these tensors holds; `vision.frames` tells how many frames of a clip it has embeddings for."""
        return joint_config(shapes, heads)

    def table(self, config: ModelConfig) -> KeyTable:
        """Names of the tensors of such a model."""
        return joint_table(config)

    def buffers(self, config: ModelConfig) -> dict[str, Tensor]:
        """What official files hold beside weights."""
        return joint_buffers(config)
