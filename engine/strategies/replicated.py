"""Every rank holds the whole model (DistributedDataParallel); also the strategy of a single process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor
from torch.optim import Optimizer

from engine.config.schema import EngineSettings
from engine.optimizer import load_optimizer_tensors, optimizer_tensors
from engine.strategies.base import Owner, Snapshot, Strategy, sizes
from engine.strategies.guarded import guarded_step
from models.tasks.base import Task
from models.vlm import VisionLanguageModel


class Replicated(Strategy):
    """DDP."""

    def __init__(self, settings: EngineSettings, clip_norm: float | None, timeout: timedelta | None) -> None:
        super().__init__(settings, clip_norm, timeout)
        self.accelerator = self._accelerator([DistributedDataParallelKwargs(gradient_as_bucket_view=True)])

    def prepare(self, task: Task, optimizer: Optimizer) -> None:
        """See `Strategy`."""
        self.task, self.optimizer = task.to(self.device), optimizer
        self._treat_blocks(task.model)
        self.wrapped = self.accelerator.prepare_model(task)

    def update(self) -> Tensor:
        """See `Strategy`."""
        norm = torch.nn.utils.clip_grad_norm_(self.wrapped.parameters(), self.clip_norm)
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
        kept = optimizer_owner(sizes(moments.items())) if optimizer_owner is not None else ()
        return Snapshot(
            {name: _copied(state[name]) for name in model_owner(sizes(state.items()))}, {name: _copied(moments[name]) for name in kept}
        )

    def load(self, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]) -> None:
        """See `Strategy`."""
        self.task.model.load_state_dict(dict(model))
        load_optimizer_tensors(self.optimizer, dict(optimizer))

    @contextmanager
    def whole_model(self) -> Iterator[VisionLanguageModel]:
        """See `Strategy`."""
        self.task.eval()
        try:
            yield self.task.model
        finally:
            self.task.train()


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()
