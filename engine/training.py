"""The steps of a run: what happens in each, and what between two of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NoReturn

import torch

from common.distributed import barrier, broadcast_object, is_main, rank, world_size
from common.errors import Requeue
from dataset.activity import LoaderStatus
from dataset.batches import MixedBatches, StreamBatch
from dataset.loader import batch_loader
from dataset.streams.base import Stream
from engine.config.render import config_values
from engine.faults import FaultCounter, fault_numbers
from engine.interruption import Interrupted
from engine.meters import Clock, DeviceMeans
from engine.metrics import MetricsLog
from engine.nonfinite import NonfiniteSteps
from engine.optimizer import set_learning_rate
from engine.progress import ProgressBar
from engine.schedule import linear_factor
from engine.step import Stepper
from engine.watchdog_heartbeat import Phase
from models.vlm import VisionLanguageModel

if TYPE_CHECKING:
    from engine.trainer import Engine

logger = logging.getLogger(__name__)

Evaluate = Callable[[VisionLanguageModel], dict[str, float]]
"""Numbers of a model on held-out data; called on all ranks."""


class Training:
    """Takes a prepared engine through its remaining steps.

    Args:
        engine: holds the task, the state, and everything that outlives the training.
        streams: data of the losses, by the name that the task knows them under; the first one counts the epochs.
        evaluate: held-out numbers; None: none.
        select: name of the number (larger is better) that decides which weights are kept as the best.
    """

    def __init__(self, engine: Engine, streams: Mapping[str, Stream], evaluate: Evaluate | None, select: str | None) -> None:
        config, settings = engine.config, engine.config.engine
        first = next(iter(streams.values()))
        self.engine, self.state, self.settings = engine, engine.state, settings
        self.evaluate, self.select = evaluate, select
        self.total = config.schedule.total_steps(len(first), first.images_per_batch)
        epoch = max(len(first) // first.images_per_batch, 1)
        self.evaluate_every = settings.evaluate_every or (epoch if config.schedule.epochs else max(self.total, 1))
        self.samples = sum(stream.images_per_batch for stream in streams.values())
        self.mixed = MixedBatches(dict(streams), config.seed, rank(), world_size(), settings.accumulation)
        self.faults = FaultCounter(engine.output_dir / "bad_records.txt", settings.max_bad_share, list(streams))
        about = {"config": config_values(config)}
        self.nonfinite = NonfiniteSteps(engine.output_dir, self.mixed, settings.accumulation, settings.max_nonfinite, about)
        self.means, self.clock = DeviceMeans(), Clock()
        self.saved = self.state.step

    def run(self) -> None:
        """Train to the end.

        Raises:
            UserError: too many records are unusable, or too many steps not finite.
            Requeue: the run was asked to stop, and everything is saved.
        """
        if self.total == 0:
            self._keep_start()
            return
        if self.state.step >= self.total and not self._evaluation_is_due():
            logger.info("training was finished at step %d", self.state.step)
            return
        self.log = MetricsLog(self.engine.output_dir, self.engine.config.loggers, self.state.step) if is_main() else None
        self.bar = ProgressBar(self.engine.console, self.total, self.state.step, is_main())
        try:
            with self.engine.watchdog.watching(self.state.step):
                try:
                    self._run()
                except Interrupted:
                    self._stop(self.engine.interruption.name())
                self.engine.store.wait()
        finally:
            self.engine.store.leave()
            self.bar.close()
            if self.log is not None:
                self.log.close()

    def _run(self) -> None:
        if self._evaluation_is_due():  # the run was stopped in it
            self._validate()
        self.begun = time.perf_counter() - self.state.seconds
        stepper = Stepper(self.engine.strategy, self.settings.accumulation, self.settings.accumulate_contrast)
        self.clock = Clock()
        batches = self._batches()
        for step in range(self.state.step + 1, self.total + 1):
            self._step(stepper, batches, step)
            paused = time.perf_counter()
            self._after(step)
            self.clock.skip(time.perf_counter() - paused)
            if (signal := self.engine.interruption.agreed()) is not None and step < self.total:
                self._stop(signal)

    def _keep_start(self) -> None:
        """Save the starting weights of a run that does not train."""
        logger.info("schedule.steps is 0: nothing is trained")
        try:
            if self.engine.store.last_good is None:
                self._save()
            self.engine.store.wait()
        finally:
            self.engine.store.leave()

    def _batches(self) -> Iterator[dict[str, StreamBatch]]:
        """The micro-batches of all steps to come."""
        micro = self.settings.accumulation
        status = LoaderStatus(self.settings.workers)
        self.engine.watchdog.describe_loader = status.describe
        loader = batch_loader(self.mixed, self.state.step * micro, self.total * micro, self.settings.workers, status)
        return self.engine.watchdog.watched(loader)

    def _step(self, stepper: Stepper, batches: Iterator[dict[str, StreamBatch]], step: int) -> None:
        """One optimizer step, and its log line where one is due."""
        lr, schedule = self.engine.config.optimizer.lr, self.engine.config.schedule
        factor = linear_factor(step - 1, self.total, schedule.warmup(self.total), schedule.min_lr / lr)
        set_learning_rate(stepper.strategy.optimizer, factor)
        seed_step(self.engine.config.seed, step)
        numbers = stepper.step(batches, self.clock, self.faults)
        self.nonfinite.note(step, numbers)
        self.means.add(numbers, counted=torch.isfinite(numbers["gradient_norm"]))
        self.state.step, self.state.seconds = step, time.perf_counter() - self.begun
        self.clock.steps += 1
        self.bar.advance(step)
        logs = step == self.total or step % self.settings.log_every == 0
        if logs or self._saves(step):  # a checkpoint also settles the counts, so that it holds all of them
            self.faults.settle(self.state, self.engine.device)
        if logs:
            self._report(step, lr * factor)
        self.engine.watchdog.finished(step)

    def _report(self, step: int, lr: float) -> None:
        numbers = self.means.read() | {"lr": lr} | self.clock.read(self.samples)
        numbers |= fault_numbers(self.state)
        self.state.nonfinite += self.nonfinite.take_count()
        if self.state.nonfinite:
            numbers["nonfinite_steps"] = float(self.state.nonfinite)
        if self.log is not None:
            self.log.write("train", step, numbers)
        self.bar.report(step, numbers)

    def _saves(self, step: int) -> bool:
        return step == self.total or step % self.settings.checkpoint_every == 0

    def _after(self, step: int) -> None:
        """What happens between two steps."""
        self.engine.store.poll()
        if self._evaluation_is_due():
            self._validate()
        if self._saves(step):
            self._save()

    def _evaluation_is_due(self) -> bool:
        step = self.state.step
        scheduled = step > 0 and (step == self.total or step % self.evaluate_every == 0)
        return self.evaluate is not None and scheduled and self.state.evaluated < step

    def _validate(self) -> None:
        assert self.evaluate is not None, "only called where an evaluation is due"
        with self.engine.strategy.whole_model() as model, self.engine.watchdog.evaluating(model):
            numbers = self.engine.evaluate(self.evaluate, model)
        logger.info("step %d validation  %s", self.state.step, "  ".join(f"{name} {value:.2f}" for name, value in numbers.items()))
        if self.log is not None:
            self.log.write("validation", self.state.step, numbers)
        if self.select is not None:
            value = broadcast_object(numbers[self.select])  # one rank decides, since saving is done together
            if self.state.best_value is None or value > self.state.best_value:
                self.state.best_step, self.state.best_value = self.state.step, value
                self.engine.save_best()
        self.state.evaluated = self.state.step
        barrier()

    def _save(self) -> None:
        self.nonfinite.settle()
        self.state.nonfinite += self.nonfinite.take_count()
        with self.engine.watchdog.phase(Phase.SAVING):
            self.engine.save()
        self.saved = self.state.step

    def _stop(self, signal: str) -> NoReturn:
        """End the run so that it can go on: everything saved."""
        logger.info("stopping after step %d because of %s", self.state.step, signal)
        if self.saved < self.state.step:
            self.faults.settle(self.state, self.engine.device)
            self._save()
        self.engine.store.wait()
        good = self.engine.store.last_good
        raise Requeue(
            f"Stopped by {signal} after step {self.state.step} of {self.total}; the checkpoint of step {good} is good. "
            "The same command goes on from there."
        )


def seed_step(seed: int, step: int) -> None:
    """Seed dropout and stochastic depth as a function of seed, step and rank, so that nothing has to be saved to resume."""
    torch.manual_seed(((seed * 1_000_003 + step) * 4096 + rank()) % 2**63)
