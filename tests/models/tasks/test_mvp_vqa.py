"""MVP on VQA v2."""

import torch

from models.mvp.config import MvpConfig
from models.mvp.model import Mvp
from models.objectives.answers import soft_answer_loss
from models.tasks.mvp_vqa import vqa_logits, vqa_loss, vqa_states
from mvp_batches import SMALL, mvp_batch


def test_soft_scores_are_learned_by_every_parameter_that_answers() -> None:
    torch.manual_seed(0)
    config: MvpConfig = SMALL.model_copy(update={"vqa_answers": 5})
    model = Mvp(config, ("vqa",)).eval()
    batch = mvp_batch(4) | {"answer_scores": torch.rand(4, 5)}
    logits = vqa_logits(model, vqa_states(model, batch))
    assert logits.shape == (4, 5)
    vqa_loss(logits, batch).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_the_loss_sums_over_answers_and_averages_over_questions() -> None:
    logits, scores = torch.tensor([[0.0, 2.0], [-1.0, 0.0]]), torch.tensor([[1.0, 0.3], [0.0, 0.5]])
    share = logits.sigmoid()
    expected = -(scores * share.log() + (1 - scores) * (1 - share).log()).sum() / 2
    torch.testing.assert_close(soft_answer_loss(logits, scores), expected)
