"""One optimizer step: micro-batches forward and backward, clipping, update."""

import time
from collections.abc import Iterator
from contextlib import nullcontext

import torch
from torch import Tensor

from dataset.batches import StreamBatch
from engine.faults import FaultCounter
from engine.meters import Clock, DeviceMeans
from engine.strategies import Strategy
from engine.strategies.guarded import poison_unless_finite


class Stepper:
    """Takes optimizer steps; nothing in it waits for the device."""

    def __init__(self, strategy: Strategy, accumulation: int) -> None:
        self.strategy = strategy
        self.accumulation = accumulation
        self.weights = strategy.task.weights

    def step(self, batches: Iterator[dict[str, StreamBatch]], clock: Clock, faults: FaultCounter) -> dict[str, Tensor]:
        """Take the next micro-batches and update the weights; returns means of the losses as device scalars."""
        means = DeviceMeans()
        for micro in range(self.accumulation):
            waiting = time.perf_counter()
            loaded = next(batches)
            clock.waited += time.perf_counter() - waiting
            faults.add(loaded.values())
            with self.strategy.unsynchronised() if micro < self.accumulation - 1 else nullcontext():
                means.add(self._backward(loaded))
        return means.means() | {"gradient_norm": self.strategy.update()}

    def _backward(self, loaded: dict[str, StreamBatch]) -> dict[str, Tensor]:
        device = self.strategy.device
        tensors = {
            name: {key: value.to(device, non_blocking=True) for key, value in batch.tensors.items()} for name, batch in loaded.items()
        }
        losses: dict[str, Tensor] = self.strategy.wrapped(tensors)
        total = torch.stack([self.weights[name] * value for name, value in losses.items()]).sum()
        self.strategy.backward(poison_unless_finite(total) / self.accumulation)
        return {"loss": total} | losses
