"""Hard negatives and the matching loss."""

import torch

from models.objectives.matching import hard_negatives, hardest_negatives, itm_loss


def test_true_pairs_are_never_drawn() -> None:
    generator = torch.Generator().manual_seed(0)
    similarity = torch.randn(6, 6, generator=generator) * 10
    ids = torch.tensor([0, 0, 1, 2, 3, 3])
    same = ids[:, None] == ids[None]
    for _ in range(200):
        index, valid = hard_negatives(similarity, same, torch.rand(6, generator=generator))
        assert valid.all()
        assert not same[torch.arange(6), index].any()


def test_the_extremes_of_the_uniform_draw_stay_on_negatives() -> None:
    same = torch.eye(4, dtype=torch.bool)
    for draw in (0.0, 1 - 2**-24):
        index, _ = hard_negatives(torch.zeros(4, 4), same, torch.full((4,), draw))
        assert (index != torch.arange(4)).all()


def test_draws_follow_the_softmax_of_the_similarities() -> None:
    similarity = torch.tensor([[0.0, 1.0, 2.0, 3.0]]).expand(4, 4)
    same = torch.zeros(4, 4, dtype=torch.bool)
    same[:, 0] = True
    draws = torch.rand(20_000, generator=torch.Generator().manual_seed(1)).view(-1, 4)
    counts = torch.zeros(4)
    for row in draws:
        counts += torch.bincount(hard_negatives(similarity, same, row)[0], minlength=4)
    weights = torch.tensor([0.0, 1.0, 2.0, 3.0]).softmax(0) + 1e-5
    weights[0] = 0
    torch.testing.assert_close(counts / counts.sum(), weights / weights.sum(), atol=0.015, rtol=0)


def test_a_batch_of_one_has_no_negative_and_a_finite_loss() -> None:
    _, valid = hard_negatives(torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), torch.tensor([0.5]))
    assert not valid.any()
    logits = torch.randn(3, 2, requires_grad=True)
    loss = itm_loss(logits, torch.tensor([True, False, False]), torch.tensor([True, False, False]), "exact")
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert logits.grad[1:].abs().sum() == 0


def test_the_hardest_negative_is_the_most_similar_that_may_be_paired() -> None:
    similarity = torch.tensor([[9.0, 1.0, 2.0], [5.0, 9.0, 4.0], [0.0, 0.0, 0.0]])
    same = torch.eye(3, dtype=torch.bool)
    same[1, 0] = same[2, :] = True
    index, valid = hardest_negatives(similarity, same)
    assert index[:2].tolist() == [2, 2]
    assert valid.tolist() == [True, True, False]
