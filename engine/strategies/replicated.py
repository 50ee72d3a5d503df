"""Every rank holds the whole model (DistributedDataParallel); also the strategy of a single process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta

from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from engine.config.engine_settings import EngineSettings
from engine.optimizer import load_optimizer_tensors
from engine.strategies.native import Native
from models.tasks.base import Task
from models.vlm import VisionLanguageModel


class Replicated(Native):
    """DDP."""

    def __init__(self, settings: EngineSettings, clip_norm: float | None, timeout: timedelta | None) -> None:
        super().__init__(settings, clip_norm, timeout)
        partial = settings.updates is not None  # some parameters have no gradient in some updates
        arguments = DistributedDataParallelKwargs(gradient_as_bucket_view=True, broadcast_buffers=False, find_unused_parameters=partial)
        self.accelerator = self._accelerator([arguments])

    def prepare(self, task: Task, optimizer: Optimizer) -> None:
        """See `Strategy`."""
        self.task, self.optimizer = task.to(self.device), optimizer
        self._treat_blocks(task.model)
        self.wrapped = self.accelerator.prepare_model(task)

    def unsynchronised(self) -> AbstractContextManager[None]:
        """See `Strategy`; Accelerate's own does nothing in a group of one process, whose model is wrapped all the same."""
        return self.wrapped.no_sync() if isinstance(self.wrapped, DistributedDataParallel) else nullcontext()

    def load(self, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]) -> None:
        """See `Strategy`."""
        self.task.model.load_state_dict(dict(model))
        load_optimizer_tensors(self.optimizer, optimizer)

    @contextmanager
    def whole_model(self) -> Iterator[VisionLanguageModel]:
        """See `Strategy`."""
        self.task.eval()
        try:
            yield self.task.model
        finally:
            self.task.train()
