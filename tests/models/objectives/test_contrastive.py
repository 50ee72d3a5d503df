"""The contrastive loss, alone and over ranks."""

import torch
from torch.nn import functional as F

from models.objectives.contrastive import itc_loss


def features(rows: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_unique_ids_give_the_diagonal_loss() -> None:
    image, text, temperature = features(5, 0), features(5, 1), torch.tensor(0.07)
    plain = itc_loss(image, text, temperature, None, "exact")
    torch.testing.assert_close(itc_loss(image, text, temperature, torch.tensor([4, 9, 1, 0, 7]), "exact"), plain)
    logits = image @ text.T / 0.07
    expected = (F.cross_entropy(logits, torch.arange(5)) + F.cross_entropy(logits.T, torch.arange(5))) / 2
    torch.testing.assert_close(plain, expected)


def test_pairs_with_the_same_id_are_not_pushed_apart() -> None:
    image = features(4, 2)
    text = image.clone()
    text[1], image[1] = text[0], image[0]  # the second pair repeats the first
    ids = torch.tensor([0, 0, 1, 2])
    temperature = torch.tensor(0.01)
    together = itc_loss(image, text, temperature, ids, "exact")
    apart = itc_loss(image, text, temperature, None, "exact")
    torch.testing.assert_close(together, apart)  # both split the mass of equal columns...
    image.requires_grad_()
    itc_loss(image, text, temperature, ids, "exact").backward()
    assert image.grad is not None
    assert image.grad[0].norm() < 1e-3  # ...and with ids there is nothing left to push


def test_a_single_pair_has_zero_loss_and_a_gradient_path() -> None:
    image = features(1, 3).requires_grad_()
    loss = itc_loss(image, features(1, 4), torch.tensor(0.07), None, "exact")
    loss.backward()
    assert loss.item() == 0
    assert image.grad is not None
    assert torch.isfinite(image.grad).all()
