"""What is measured: a config's task, optimizer and strategy, built as a run builds them, with random weights and no run folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from torch import Tensor

from engine.bench.batches import Loaded, Supply
from engine.bench.marks import OTHER, StageClock, marker_for
from engine.bench.memory import SavedBytes
from engine.bench.stages import LOAD, FusionShares, StagedStepper, staged_strategy
from engine.config.schema import RunConfig
from engine.faults import FaultCounter
from engine.meters import Clock
from engine.optimizer import build_optimizer, parameter_groups, set_learning_rate
from engine.step import Stepper
from engine.strategies import build_strategy
from engine.tasks import make_task
from engine.training import seed_step
from models.tasks.base import Task

RATE = 0.01
"""Share of the learning rate: enough for the optimizer to work, too little for random weights to run away from."""


class Subject:
    """Takes optimizer steps of one config.

    Args:
        config: of the run; `initialize` and the weights of encoders are left aside.
        supply: its micro-batches.

    Raises:
        UserError: the strategy or the optimizer is not installed.
    """

    def __init__(self, config: RunConfig, supply: Supply) -> None:
        self.config = config
        self.supply = supply
        self.resume()
        # one process holds one precision, unless it begins anew; what was built before keeps its own
        AcceleratorState._reset_state()
        self.strategy = build_strategy(config.engine, config.optimizer.clip_norm, None)
        set_seed(config.seed)
        task = make_task(config)
        groups = parameter_groups(task.model.named_parameters(), config.optimizer, frozenset())
        self.strategy.prepare(task, build_optimizer(groups, config.optimizer))
        task.train()
        set_learning_rate(self.strategy.optimizer, RATE)
        self.stepper = Stepper(self.strategy, config.engine.accumulation, config.engine.accumulate_contrast)
        self.faults = FaultCounter(Path(os.devnull), config.engine.max_bad_share, list(config.batches()))
        self.clock, self.steps = Clock(), 0
        self.norms: list[Tensor] = []

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.strategy.device

    @property
    def task(self) -> Task:
        """Model and losses."""
        return self.strategy.task

    def resume(self) -> None:
        """Give the process the settings that this config has for it; needed after another subject worked."""
        if self.config.engine.threads:
            torch.set_num_threads(self.config.engine.threads)

    def step(self) -> None:
        """One optimizer step; on a GPU it is under way when this returns."""
        self.steps += 1
        seed_step(self.config.seed, self.steps)
        numbers = self.stepper.step(self.supply, self.clock, self.faults)
        self.norms.append(numbers["gradient_norm"])

    def warm_up(self, steps: int) -> int:
        """Some steps that do not count; returns the bytes that the last one's forward pass keeps for the backward pass."""
        saved = SavedBytes(self.task)
        for number in range(steps):
            with saved.counting() if number == steps - 1 else nullcontext():  # not where compilers begin
                self.step()
        marker_for(self.device).wait()
        self.supply.forget()
        self.norms = []
        return saved.total

    def skipped(self) -> int:
        """Steps since the warm-up whose gradient was not finite, so that the optimizer did nothing."""
        return int((~torch.isfinite(torch.stack(self.norms))).sum()) if self.norms else 0


class Stages:
    """Takes steps of a subject with a clock at every border between stages.

    Args:
        subject: prepared and warm.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.clock, self.shares = StageClock(marker_for(subject.device)), FusionShares()
        self.steps = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The subject's steps inside are timed by stage."""
        subject, engine = self.subject, self.subject.config.engine
        before = subject.stepper, subject.supply.batches
        stepper = StagedStepper(subject.strategy, engine.accumulation, engine.accumulate_contrast)
        stepper.clock = self.clock
        subject.stepper, subject.supply.batches = stepper, _staged(subject.supply.batches, self.clock)
        try:
            with staged_strategy(subject.strategy, self.clock, self.shares):
                yield
        finally:
            subject.stepper, subject.supply.batches = before

    def step(self) -> None:
        """One step of the subject."""
        with self.clock.stage(OTHER):
            self.subject.step()
        self.shares.end_step()
        self.steps += 1

    def seconds(self) -> dict[str, float]:
        """Mean of each stage over the steps so far; see `FusionShares.split`."""
        return {name: value / self.steps for name, value in self.shares.split(self.clock.take()).items()}


def _staged(batches: Iterator[Loaded], clock: StageClock) -> Iterator[Loaded]:
    while True:
        with clock.stage(LOAD):
            loaded = next(batches, None)
        if loaded is None:
            return
        yield loaded
