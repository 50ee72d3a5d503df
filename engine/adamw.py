"""The AdamW that the published code trained with (transformers 4.12), for repeating its trajectories."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class OfficialAdamW(Optimizer):
    """Adam with bias correction and decoupled weight decay, in the order of the published code.

    Of a parameter p with gradient g, at its t-th step: m and v are the running means of g and g²; then p -= lr · c · m / (√v + eps) with
    c = √(1 - beta2^t) / (1 - beta1^t), and only then p -= lr · weight_decay · p. torch's AdamW decays first and corrects v before eps is
    added, so that its eps weighs more in the first steps. Both differ by less than a thousandth of a step in common training, but
    a published trajectory is met only with this one.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update all parameters that have a gradient; `closure` as in torch.optim."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    _update(parameter, parameter.grad, self.state[parameter], group)
        return loss


def _update(parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    if not state:
        state["step"] = torch.tensor(0.0)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
    state["step"] += 1
    beta1, beta2 = group["betas"]
    mean, square, step = state["exp_avg"], state["exp_avg_sq"], float(state["step"])
    mean.mul_(beta1).add_(gradient, alpha=1 - beta1)
    square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    rate = group["lr"] * math.sqrt(1 - beta2**step) / (1 - beta1**step)
    parameter.addcdiv_(mean, square.sqrt().add_(group["eps"]), value=-rate)
    if group["weight_decay"]:
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
