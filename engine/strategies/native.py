"""What PyTorch's own strategies have in common: the optimizer steps on the parameters themselves, whole or in parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from engine.optimizer import optimizer_tensors
from engine.strategies.base import Owner, Snapshot, Strategy, Tensors
from engine.strategies.guarded import guarded_step
from engine.strategies.scalars import to_cpu


class Native(Strategy):
    """Base of DDP and FSDP2."""

    scalars: frozenset[str] = frozenset()
    """Parameters that are vectors of one inside the strategy and scalars outside."""

    def update(self) -> Tensor:
        """See `Strategy`."""
        norm = self._whole(torch.nn.utils.clip_grad_norm_(self.wrapped.parameters(), self.clip_norm))
        guarded_step(self.optimizer, norm)
        return norm

    @torch.no_grad()
    def keep_in_range(self) -> None:
        """See `Strategy`."""
        for name, (low, high) in self.task.bounds().items():
            self.task.get_parameter(name).clamp_(low, high)

    def snapshot(self, model_owner: Owner, optimizer_owner: Owner | None) -> Snapshot:
        """See `Strategy`."""
        state = self.task.model.state_dict()
        moments = optimizer_tensors(self.optimizer) if optimizer_owner is not None else {}
        kept = optimizer_owner(_sizes(moments)) if optimizer_owner is not None else ()
        return Snapshot(self._copied(state, model_owner(_sizes(state))), self._copied(moments, kept))

    def _whole(self, tensor: Tensor) -> Tensor:
        """The full tensor of what lies on this rank; all ranks together."""
        return tensor

    def _copied(self, tensors: Mapping[str, Tensor], names: Iterable[str]) -> Tensors:
        """CPU copies of the named ones. All ranks visit all tensors in one order, since to make one whole may need them all."""
        kept = set(names)
        found: Tensors = {}
        for name, tensor in tensors.items():
            whole = self._whole(tensor.detach())
            if name in kept:
                found[name] = to_cpu(name, whole, self.scalars)
        return found


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Bytes of full tensors by name."""
    return {name: tensor.numel() * tensor.element_size() for name, tensor in tensors.items()}
