"""How the contrastive losses of a forward pass are made: from the pairs at hand, or from those of a whole optimizer step.

With accumulated micro-batches the pairs of a step never meet in one forward pass. Their features do, in the way of GradCache (arXiv
2101.06983): a first pass without gradient collects the features of every micro-batch (`Collecting`), the losses and their gradients are
taken on all of them at once (`replaying`), and a second pass with gradient hands each micro-batch its share of that gradient (`Replaying`).
A task knows none of this; it passes on the `Contrast` that its forward pass was given.

Shapes: B pairs of one micro-batch on this rank, E feature width.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from common.distributed import GradientMode
from models.objectives.contrastive import itc_loss


class Contrast:
    """Contrasts the pairs at hand, over all ranks."""

    stops_at_features: bool = False
    """Whether the forward pass ends when all contrastive features are known, and its losses mean nothing."""

    def begin(self, stream: str) -> None:
        """The work on a stream's batch begins."""

    def __call__(self, image: Tensor, text: Tensor, temperature: Tensor, ids: Tensor | None, mode: GradientMode) -> Tensor:
        """The loss of pairs of features [B, E]; see `itc_loss`. In every pass over a batch the calls come in the same order."""
        return itc_loss(image, text, temperature, ids, mode)


DIRECT = Contrast()


class Pairs(NamedTuple):
    """What one contrastive loss was asked of."""

    image: Tensor
    """[B, E]"""
    text: Tensor
    """[B, E]"""
    temperature: Tensor
    ids: Tensor | None
    """[B]"""
    mode: GradientMode


class Share(NamedTuple):
    """What one contrastive loss of a whole step gives one micro-batch."""

    loss: Tensor
    """Scalar, of the whole step."""
    image: Tensor
    """[B, E] gradient."""
    text: Tensor
    """[B, E] gradient."""
    temperature: Tensor
    """Gradient."""


class _Seeded(Contrast):
    """Draws the same dropout and stochastic depth in every pass, whether or not the work between the encoders is done."""

    def __init__(self, seed: str) -> None:
        self.seed = seed

    def begin(self, stream: str) -> None:
        digest = hashlib.blake2b(f"{self.seed}/{stream}".encode(), digest_size=8).digest()
        torch.manual_seed(int.from_bytes(digest, "little") >> 1)


class Collecting(_Seeded):
    """Takes the features of one micro-batch; its pass needs no gradient.

    Args:
        seed: names the step, the rank and the micro-batch.
    """

    stops_at_features = True

    def __init__(self, seed: str) -> None:
        super().__init__(seed)
        self.calls: list[Pairs] = []

    def __call__(self, image: Tensor, text: Tensor, temperature: Tensor, ids: Tensor | None, mode: GradientMode) -> Tensor:
        # a copy of the temperature: a sharded engine gives its parameters back after the pass
        self.calls.append(Pairs(image.detach(), text.detach(), temperature.detach().clone(), ids, mode))
        return image.new_zeros(())


class Replaying(_Seeded):
    """Gives the losses of the whole step, with the gradient that is this micro-batch's share.

    Args:
        seed: as that of the `Collecting` whose features are replayed.
        shares: one for each call, in order.
    """

    def __init__(self, seed: str, shares: Sequence[Share]) -> None:
        super().__init__(seed)
        self.shares = iter(shares)

    def __call__(self, image: Tensor, text: Tensor, temperature: Tensor, ids: Tensor | None, mode: GradientMode) -> Tensor:
        return _Replayed.apply(image, text, temperature, *next(self.shares))  # pyright: ignore[reportReturnType]


def replaying(collected: Sequence[Collecting]) -> list[Replaying]:
    """Contrast all pairs that the micro-batches of a step collected, on this rank and all others.

    Every micro-batch gets each loss of the whole step, and gradients whose mean over the micro-batches is the loss's. In gradient mode
    `paper` this is the step that `paper` takes without accumulation: the contrastive gradient is divided by the ranks, not by the
    micro-batches as well.

    Args:
        collected: the micro-batches, each with the same number of calls.
    """
    shares: list[list[Share]] = [[] for _ in collected]
    for calls in zip(*(micro.calls for micro in collected), strict=True):
        for given, share in zip(shares, _contrast(calls), strict=True):
            given.append(share)
    return [Replaying(micro.seed, given) for micro, given in zip(collected, shares, strict=True)]


@torch.enable_grad()
def _contrast(micros: Sequence[Pairs]) -> list[Share]:
    """One loss over the pairs of all micro-batches."""
    sizes = [len(pairs.image) for pairs in micros]
    image, text = (torch.cat(parts).requires_grad_() for parts in zip(*((pairs.image, pairs.text) for pairs in micros), strict=True))
    temperature, mode = micros[0].temperature.requires_grad_(), micros[0].mode
    given = [pairs.ids for pairs in micros if pairs.ids is not None]
    loss = itc_loss(image, text, temperature, torch.cat(given) if given else None, mode)
    of_image, of_text, of_temperature = torch.autograd.grad(loss, (image, text, temperature))
    # a pair is in one micro-batch alone, the temperature in all: their mean is to be the gradient of either
    parts = zip((of_image * len(micros)).split(sizes), (of_text * len(micros)).split(sizes), strict=True)
    return [Share(loss.detach(), *part, of_temperature) for part in parts]


class _Replayed(torch.autograd.Function):
    """A known loss with known gradients."""

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, text: Tensor, temperature: Tensor, loss: Tensor, of_image: Tensor, of_text: Tensor, of_temperature: Tensor
    ) -> Tensor:
        ctx.save_for_backward(of_image, of_text, of_temperature)
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        of_image, of_text, of_temperature = (gradient * grad_outputs[0] for gradient in ctx.saved_tensors)
        return of_image, of_text, of_temperature, None, None, None, None
