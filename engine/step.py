"""One optimizer step: micro-batches forward and backward, clipping, update."""

import time
from collections.abc import Iterator

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from dataset.batches import StreamBatch
from engine.faults import FaultCounter
from engine.meters import Clock, DeviceMeans
from models.tasks.base import Task


class Stepper:
    """Takes optimizer steps; nothing in it waits for the device."""

    def __init__(self, accumulation: int, clip_norm: float | None, accelerator: Accelerator, task: Task, optimizer: Optimizer) -> None:
        self.accumulation = accumulation
        self.clip_norm = clip_norm
        self.accelerator = accelerator
        self.weights = task.weights
        self.wrapped: nn.Module
        self.optimizer: Optimizer
        self.wrapped, self.optimizer = accelerator.prepare(task, optimizer)

    def step(self, batches: Iterator[dict[str, StreamBatch]], clock: Clock, faults: FaultCounter) -> dict[str, Tensor]:
        """Take the next micro-batches and update the weights; returns means of the losses as device scalars."""
        means = DeviceMeans()
        for micro in range(self.accumulation):
            waiting = time.perf_counter()
            loaded = next(batches)
            clock.waited += time.perf_counter() - waiting
            faults.add(loaded.values())
            if micro < self.accumulation - 1:
                with self.accelerator.no_sync(self.wrapped):
                    means.add(self._backward(loaded))
            else:
                means.add(self._backward(loaded))
        if self.clip_norm is not None:
            norm = self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.clip_norm)
            if isinstance(norm, Tensor):
                means.add({"gradient_norm": norm})
        self.optimizer.step()
        self.optimizer.zero_grad()
        return means.means()

    def _backward(self, loaded: dict[str, StreamBatch]) -> dict[str, Tensor]:
        device = self.accelerator.device
        tensors = {
            name: {key: value.to(device, non_blocking=True) for key, value in batch.tensors.items()} for name, batch in loaded.items()
        }
        losses: dict[str, Tensor] = self.wrapped(tensors)
        total = torch.stack([self.weights[name] * value for name, value in losses.items()]).sum()
        self.accelerator.backward(total / self.accumulation)
        return {"loss": total} | losses
