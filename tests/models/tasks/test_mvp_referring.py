"""MVP's choice among regions."""

import pytest
import torch

from models.objectives.region_ranking import choice_loss, overlap_loss
from models.tasks.mvp_referring import MvpReferrer, chosen_regions, referring_loss
from mvp_batches import REGIONS, SMALL, mvp_batch

ROWS = 4


@pytest.mark.parametrize("score", ["cosine", "product", "linear"])
def test_a_few_steps_find_the_regions_that_are_meant(score) -> None:
    torch.manual_seed(0)
    model = MvpReferrer(SMALL, score, layer=-1)
    batch = mvp_batch(ROWS)
    meant = torch.tensor([0, 3, 2, 1])
    batch["overlaps"] = torch.nn.functional.one_hot(meant, REGIONS).float() * 0.9 + 0.05
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(20):
        loss = referring_loss(model.region_scores(batch), batch, score, "exact")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scores = model.region_scores(batch)
    assert scores.shape == (ROWS, REGIONS)
    assert chosen_regions(scores, batch["region_mask"]).tolist() == meant.tolist()


def test_the_layer_is_that_of_the_joint_encoder() -> None:
    torch.manual_seed(0)
    model, batch = MvpReferrer(SMALL, "cosine", layer=0).eval(), mvp_batch(ROWS)
    first = model.region_scores(batch)
    for parameter in model.joint_encoder.layers[1].parameters():
        torch.nn.init.zeros_(parameter)
    torch.testing.assert_close(model.region_scores(batch), first)
    model.layer = 1
    assert not torch.allclose(model.region_scores(batch), first)


@pytest.mark.parametrize("loss", [overlap_loss, choice_loss])
def test_padding_counts_in_no_loss_and_is_never_chosen(loss) -> None:
    scores, overlaps = torch.tensor([[0.2, 0.9, 5.0]], requires_grad=True), torch.tensor([[0.1, 0.8, -1.0]])
    mask = torch.tensor([[True, True, False]])
    found = loss(scores, overlaps, mask, "exact")
    torch.testing.assert_close(found, loss(scores[:, :2], overlaps[:, :2], mask[:, :2], "exact"))
    [gradient] = torch.autograd.grad(found, [scores])
    assert gradient[0, 2] == 0
    assert gradient[0, :2].abs().min() > 0
    assert chosen_regions(scores, mask).tolist() == [1]
    assert torch.isfinite(loss(scores, overlaps, mask & False, "exact"))
