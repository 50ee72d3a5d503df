"""MVP fine-tuned for retrieval."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from models.mvp.config import MvpLearning
from models.tasks.mvp import mvp_losses, mvp_states
from models.tasks.mvp_retrieval import MvpRetriever
from mvp_batches import SMALL, mvp_batch

OBJECTIVES = ("itc", "itm")


@pytest.mark.parametrize("hidden", [None, 7])
def test_ranking_uses_the_logits_that_the_matching_loss_is_made_of_with_class_1_for_true_pairs(hidden: int | None) -> None:
    torch.manual_seed(0)
    model = MvpRetriever(SMALL, hidden)
    for parameter in model.cls_head.parameters():
        torch.nn.init.normal_(parameter)
    batch = mvp_batch(6)
    with torch.no_grad():
        states = mvp_states(model, batch, OBJECTIVES, MvpLearning())
        loss = mvp_losses(model, batch, OBJECTIVES, MvpLearning(), "exact")["itm"]
        assert states.wrong is not None
        text, image = (torch.cat([torch.arange(6), wrong]) for wrong in (states.wrong.text, states.wrong.image))
        logits = model.match(states.text[text], batch["text_mask"][text], states.regions[image], batch["region_mask"][image])
    torch.testing.assert_close(loss, cross_entropy(logits, torch.tensor([1] * 6 + [0] * 6)))


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    model = MvpRetriever(SMALL)
    torch.stack(list(mvp_losses(model, mvp_batch(4), OBJECTIVES, MvpLearning(), "exact").values())).sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
