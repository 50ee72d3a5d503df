"""Features and the gathered contrastive loss to compare with, on one rank or several."""

from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from common.distributed import GradientMode, rank, world_size
from models.objectives.contrastive import STORED_LOGITS, itc_loss
from models.objectives.contrastive_ring import TILE

IDS = (3, 1, 1, 7, 3, 5, 1)
"""Of the pairs of every rank: some have one partner, others three on each rank."""


def pairs(rows: int, width: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Image and text features [B, E] of this rank and the temperature, float64, with gradients."""
    generator = torch.Generator().manual_seed(rank())
    image, text = (F.normalize(torch.randn(rows, width, generator=generator, dtype=torch.float64), dim=1) for _ in range(2))
    return image.requires_grad_(), text.requires_grad_(), torch.tensor(0.1, dtype=torch.float64, requires_grad=True)


def loss_and_gradients(stored_logits: int, tile: int, mode: GradientMode, ids: Tensor | None, rows: int = len(IDS)) -> list[Tensor]:
    """The loss, and its gradients for images, texts and temperature; every rank asks for another multiple of it."""
    image, text, temperature = pairs(rows)
    loss = itc_loss(image, text, temperature, ids, mode, stored_logits, tile)
    return [loss.detach(), *torch.autograd.grad(loss * (rank() + 1), (image, text, temperature))]


def compare_ring_with_gathered() -> None:
    """On every rank: what the ring gives is what the gathered similarities give."""
    own = torch.tensor(IDS)
    of_ranks = own + 100 * (own == 5) * rank()  # one id is of this rank alone, the others are met on all
    modes: tuple[GradientMode, ...] = ("exact", "paper")
    for mode, ids, tile in product(modes, (None, own, of_ranks), (2, len(IDS), TILE)):
        expected = loss_and_gradients(STORED_LOGITS, tile, mode, ids)
        found = loss_and_gradients(0, tile, mode, ids)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13, msg=lambda text: f"{mode}, {tile}, {world_size()}: {text}")  # noqa: B023
