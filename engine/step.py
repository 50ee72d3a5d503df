"""One step of a run: micro-batches forward and backward, clipping, update; with several updates the same for each group of streams."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor

from common.distributed import sum_over_ranks
from dataset.batches import StreamBatch
from engine.config.engine_settings import EngineSettings
from engine.faults import FaultCounter
from engine.meters import Clock, DeviceMeans
from engine.strategies import Strategy
from engine.strategies.guarded import poison_unless_finite
from models.tasks.base import Batch, Task
from models.tasks.contrast import DIRECT, Collecting, Contrast, replaying

Loaded = dict[str, StreamBatch]
ContrastOver = Literal["batch", "micro"]
"""Whether contrastive losses compare the pairs of a whole step or those of one micro-batch."""


class MicroBatches:
    """The micro-batches of one step, in host memory; each is fetched when it is first asked for.

    Args:
        batches: all that are to come.
        count: of this step.
        clock: is told how long fetching took.
        faults: is told of records that could not be used.
    """

    def __init__(self, batches: Iterator[Loaded], count: int, clock: Clock, faults: FaultCounter) -> None:
        self.batches = batches
        self.count = count
        self.clock = clock
        self.faults = faults
        self.held: list[Loaded] = []

    def of(self, streams: Sequence[str] | None) -> Iterator[Loaded]:
        """What the micro-batches have of these streams, or of all."""
        for micro in range(self.count):
            if micro == len(self.held):
                self.held.append(self._fetch())
            loaded = self.held[micro]
            yield loaded if streams is None else {name: loaded[name] for name in streams if name in loaded}

    def _fetch(self) -> Loaded:
        waiting = time.perf_counter()
        loaded = next(self.batches)
        self.clock.waited += time.perf_counter() - waiting
        self.faults.add(loaded.values())
        return loaded


class Stepper:
    """Takes steps of one optimizer update or several; nothing in it waits for the device.

    Args:
        strategy: holds the task and its optimizer, prepared.
        accumulation: micro-batches of a step.
        contrast_over: see `ContrastOver`; one micro-batch is the whole step either way.
    """

    def __init__(self, strategy: Strategy, accumulation: int, contrast_over: ContrastOver = "batch") -> None:
        self.strategy = strategy
        self.accumulation = accumulation
        self.task = strategy.task
        self.weights = self.task.weights
        self.collects = accumulation > 1 and contrast_over == "batch" and self.task.contrasts
        self.updates: Sequence[Sequence[str] | None] = strategy.settings.updates or [None]

    def step(self, batches: Iterator[Loaded], clock: Clock, faults: FaultCounter) -> dict[str, Tensor]:
        """Take the next micro-batches and update the weights, unless a loss or a gradient is not finite: then no weight changes.

        Where the streams have several updates (`engine.updates`), each sees the weights that the one before left, and one that is not
        finite is left out by itself. Dropout and stochastic depth draw from PyTorch's generator as the caller seeded it for this step.

        Returns:
            Means of the losses and "gradient_norm" before clipping, device scalars; the norm is not finite where the step was left out.
            Of several updates it is the largest, and each one's own is "gradient_norm/STREAM+STREAM".
        """
        seed = torch.initial_seed()  # what the step was seeded with; collecting seeds anew
        micros = MicroBatches(batches, self.accumulation, clock, faults)
        numbers: dict[str, Tensor] = {}
        norms: dict[str, Tensor] = {}
        losses: list[Tensor] = []
        for streams in self.updates:
            held, contrasts = self._load(micros.of(streams), seed)
            if not held[0]:
                continue  # its streams are switched off
            found = self._update(held, contrasts)
            losses.append(found.pop("loss"))
            norms[f"gradient_norm/{'+'.join(held[0])}"] = found.pop("gradient_norm")
            numbers |= found
        each = norms if len(norms) > 1 else {}
        return {"loss": torch.stack(losses).sum()} | numbers | each | {"gradient_norm": torch.stack(list(norms.values())).max()}

    def _update(self, held: list[Loaded], contrasts: Sequence[Contrast]) -> dict[str, Tensor]:
        """One optimizer update: means of the losses, and the gradient's norm."""
        shares = self._row_shares(held)
        means = DeviceMeans()
        for micro, (loaded, contrast) in enumerate(zip(held, contrasts, strict=True)):
            means.add(self._backward(loaded, contrast, shares[micro], micro == self.accumulation - 1))
        return means.means() | {"gradient_norm": self.strategy.update()}

    def _load(self, micros: Iterator[Loaded], seed: int) -> tuple[list[Loaded], Sequence[Contrast]]:
        """The micro-batches of an update, which stay in host memory, with what makes their contrastive losses."""
        held: list[Loaded] = []
        collected: list[Collecting] = []
        self.strategy.keep_in_range()
        for micro, loaded in enumerate(micros):
            held.append(loaded)
            if self.collects:  # the device collects while the next is loaded
                collected.append(Collecting(f"{seed}/{micro}"))
                with torch.no_grad():
                    self.strategy.losses(self._on_device(loaded), collected[-1])
        return held, replaying(collected) if self.collects else [DIRECT] * len(held)

    def _row_shares(self, held: list[Loaded]) -> list[dict[str, Tensor]]:
        """By what to multiply each loss of each micro-batch, so that their mean is the mean over all rows of the step."""
        if self.accumulation == 1:
            return [{}]
        counts = [self.task.row_counts({name: batch.tensors for name, batch in loaded.items()}) for loaded in held]
        names = list(counts[0])
        if not names:
            return counts
        table = torch.stack([torch.stack([micro[name] for name in names]) for micro in counts]).double()  # [micro-batches, losses]
        table = sum_over_ranks(table.to(self.strategy.device, non_blocking=True))
        table = table / table.mean(dim=0).clamp(min=torch.finfo(table.dtype).tiny)  # without rows every share is 0
        return [dict(zip(names, shares, strict=True)) for shares in table]

    def _backward(self, loaded: Loaded, contrast: Contrast, shares: dict[str, Tensor], last: bool) -> dict[str, Tensor]:
        """Gradients of one micro-batch, which are summed over ranks in its last turn if it is the last."""
        losses: dict[str, Tensor] = {}
        totals: list[Tensor] = []
        turns = turns_of(self.task, self.strategy.settings, {name: batch.tensors for name, batch in loaded.items()})
        for number, turn in enumerate(turns):
            summed = last and number == len(turns) - 1
            with nullcontext() if summed else self.strategy.unsynchronised():
                found = self.strategy.losses(self._on_device({name: loaded[name] for name in turn}), contrast)
                found = {name: value * shares[name].to(value.dtype) if name in shares else value for name, value in found.items()}
                total = torch.stack([self.weights[name] * value for name, value in found.items()]).sum()
                self.strategy.backward(poison_unless_finite(total) / self.accumulation)
            losses |= {name: value.detach() for name, value in found.items()}
            totals.append(total.detach())
        return {"loss": torch.stack(totals).sum()} | losses

    def _on_device(self, loaded: Loaded) -> dict[str, dict[str, Tensor]]:
        device = self.strategy.device
        return {name: {key: value.to(device, non_blocking=True) for key, value in batch.tensors.items()} for name, batch in loaded.items()}


def turns_of(task: Task, settings: EngineSettings, batches: Mapping[str, Batch]) -> list[list[str]]:
    """Streams of one update that are differentiated one after the other."""
    if not settings.takes_turns:
        return [list(batches)]
    if settings.updates is not None:  # the strategy then looks for parameters that the last turn leaves out
        return [[name] for name in batches]
    return task.turns(batches)
