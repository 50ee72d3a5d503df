"""An optimizer step that a gradient which is not finite cannot turn into damage."""

import torch
from torch import Tensor
from torch.optim import Optimizer


def guarded_step(optimizer: Optimizer, norm: Tensor) -> None:
    """Take the optimizer's step, or leave weights and state as they are.

    Fused implementations decide on the device and the host does not wait; for the others it must look at the norm.

    Args:
        optimizer: its gradients are clipped; cleared afterwards.
        norm: scalar, the gradient's norm, equal on all ranks; the step is taken if it is finite.
    """
    bad = ~torch.isfinite(norm)
    if all(group.get("fused") for group in optimizer.param_groups):
        # the interface that gradient scalers use (torch.optim.AdamW, `_step_supports_amp_scaling`)
        optimizer.grad_scale, optimizer.found_inf = None, bad.float()  # pyright: ignore[reportAttributeAccessIssue]
        try:
            optimizer.step()
        finally:
            del optimizer.grad_scale, optimizer.found_inf  # pyright: ignore[reportAttributeAccessIssue]
    elif not bool(bad):
        optimizer.step()
    optimizer.zero_grad()


def poison_unless_finite(loss: Tensor) -> Tensor:
    """The loss, with a gradient that is not finite wherever the loss is not: so one number, the gradient's norm, tells of both."""
    factor = torch.where(torch.isfinite(loss.detach()), 1.0, torch.nan)
    return loss * factor
