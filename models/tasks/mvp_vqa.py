"""MVP on VQA v2 (arXiv 2201.12596, section 4): the fused state of [CLS] chooses among answers, learned from soft scores.

Keys of a batch are those of models/tasks/mvp.py for texts, tags and regions, and for the loss `answer_scores`, float [R, A] in [0, 1].
"""

from torch import Tensor

from models.mvp.config import MvpLearning
from models.mvp.model import Mvp
from models.objectives.answers import soft_answer_loss
from models.tasks.base import Batch
from models.tasks.mvp import MvpStates, mvp_states


def vqa_states(model: Mvp, batch: Batch) -> MvpStates:
    """Questions, tags and regions after the encoders."""
    return mvp_states(model, batch, ("qa",), MvpLearning())


def vqa_logits(model: Mvp, states: MvpStates) -> Tensor:
    """Logits [R, A] of the answers."""
    assert states.positive is not None, "questions are fused"
    return model.vqa_logits(states.positive[-1])


def vqa_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Scalar loss of logits [R, A]."""
    return soft_answer_loss(logits, batch["answer_scores"])
