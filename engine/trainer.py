"""The training loop: it knows streams of batches, named losses and steps, and nothing of boxes or questions."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, set_seed
from torch.optim import Optimizer

from common.distributed import barrier, is_main, rank, world_size
from dataset.batches import MixedBatches
from dataset.loader import batch_loader
from dataset.streams.base import Stream
from engine.board import open_board
from engine.checkpoints import CHECKPOINTS, CheckpointStore, TrainState, copy_share
from engine.config.schema import RunConfig
from engine.faults import FaultCounter
from engine.meters import Clock, DeviceMeans
from engine.metrics import MetricsLog
from engine.optimizer import build_optimizer, load_optimizer_tensors, optimizer_tensors, parameter_groups, set_learning_rate
from engine.progress import ProgressBar, set_up_logging
from engine.schedule import linear_factor
from engine.step import Stepper
from engine.weights import find_weights
from models.checkpoints import load_checkpoint
from models.initial_weights import load_initial_weights
from models.tasks.base import Task
from models.vlm import VisionLanguageModel

logger = logging.getLogger(__name__)

Evaluate = Callable[[VisionLanguageModel], dict[str, float]]
"""Numbers of a model on held-out data; called on all ranks."""


class Engine:
    """Trains a task and keeps it alive: resumes, checkpoints, logs."""

    def __init__(self, config: RunConfig, output_dir: Path) -> None:
        self.config = config
        self.output_dir = output_dir
        output_dir.mkdir(parents=True, exist_ok=True)
        if config.engine.threads:
            torch.set_num_threads(config.engine.threads)
        self.accelerator = Accelerator(
            mixed_precision="bf16" if config.engine.precision == "bf16" else "no",
            cpu=not torch.cuda.is_available(),
            kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
        )
        self.console = set_up_logging(output_dir, is_main())
        self.store = CheckpointStore(output_dir / CHECKPOINTS, config.engine.keep_checkpoints, open_board())
        self.state = TrainState(world=world_size())
        self.new_parameters: frozenset[str] = frozenset()
        set_seed(config.seed)  # the initial weights; later every step seeds itself

    @property
    def device(self) -> torch.device:
        """Of this rank."""
        return self.accelerator.device

    def initialize(self, model: VisionLanguageModel) -> None:
        """Give a new model its starting weights: a checkpoint, or pretrained encoders, as configured."""
        settings = self.config.initialize
        if settings.checkpoint is not None:
            coverage = load_checkpoint(model, find_weights(Path(settings.checkpoint)), settings.allow_missing)
            self.new_parameters = frozenset(coverage.new)
        else:
            filled = load_initial_weights(model, settings.allow_missing)
            self.new_parameters = frozenset(name for name, _ in model.named_parameters()) - filled

    def fit(self, task: Task, streams: Mapping[str, Stream], evaluate: Evaluate | None = None, select: str | None = None) -> None:
        """Train to the configured number of steps, from the latest checkpoint if there is one.

        Args:
            task: model and losses, with its starting weights.
            streams: data of the losses, by the name that the task knows them under.
            evaluate: held-out numbers, every `engine.evaluate_every` steps and at the end.
            select: name of the number (larger is better) that decides which weights are kept as the best.

        Raises:
            UserError: when too many records are unusable, or the batch cannot be split over the ranks.
        """
        first = next(iter(streams.values()))
        epoch = max(len(first) // first.images_per_batch, 1)
        total = self.config.schedule.total_steps(len(first), first.images_per_batch)
        task.to(self.device)
        optimizer = build_optimizer(
            parameter_groups(task.model.named_parameters(), self.config.optimizer, self.new_parameters), self.config.optimizer
        )
        self._resume(task, optimizer)
        if self.state.step >= total:
            logger.info("training was finished at step %d", self.state.step)
            return
        log = MetricsLog(self.output_dir, self.config.loggers, self.state.step) if is_main() else None
        bar = ProgressBar(self.console, total, self.state.step, is_main())
        every = self.config.engine.evaluate_every or (epoch if self.config.schedule.epochs else total)

        def after(step: int) -> None:
            """What happens between two steps."""
            self.store.poll()
            if evaluate is not None and (step == total or step % every == 0):
                self._validate(task, evaluate, select, log)
            if step == total or step % self.config.engine.checkpoint_every == 0:
                self._save(task, optimizer)

        try:
            stepper = Stepper(self.config.engine.accumulation, self.config.optimizer.clip_norm, self.accelerator, task, optimizer)
            self._loop(stepper, streams, total, log, bar, after)
            self.store.wait()
        finally:
            bar.close()
            if log is not None:
                log.close()

    def _loop(
        self,
        stepper: Stepper,
        streams: Mapping[str, Stream],
        total: int,
        log: MetricsLog | None,
        bar: ProgressBar,
        after: Callable[[int], None],
    ) -> None:
        settings, schedule, lr = self.config.engine, self.config.schedule, self.config.optimizer.lr
        warmup = schedule.warmup(total)
        mixed = MixedBatches(dict(streams), self.config.seed, rank(), world_size(), settings.accumulation)
        batches = batch_loader(mixed, self.state.step * settings.accumulation, total * settings.accumulation, settings.workers)
        samples = sum(stream.images_per_batch for stream in streams.values())
        faults = FaultCounter(self.output_dir / "bad_records.txt", settings.max_bad_share)
        means, clock, begun = DeviceMeans(), Clock(), time.perf_counter() - self.state.seconds
        for step in range(self.state.step + 1, total + 1):
            factor = linear_factor(step - 1, total, warmup, schedule.min_lr / lr)
            set_learning_rate(stepper.optimizer, factor)
            seed_step(self.config.seed, step)
            means.add(stepper.step(batches, clock, faults))
            self.state.step, self.state.seconds = step, time.perf_counter() - begun
            clock.steps += 1
            bar.advance(step)
            # a checkpoint also settles the counts, so that it holds all of them
            if step == total or step % settings.log_every == 0 or step % settings.checkpoint_every == 0:
                faults.settle(self.state, self.device)
            if step == total or step % settings.log_every == 0:
                numbers = means.read() | {"lr": lr * factor} | clock.read(samples)
                if self.state.faults:
                    numbers["skipped_records"] = float(self.state.faults)
                if log is not None:
                    log.write("train", step, numbers)
                bar.report(step, numbers)
            paused = time.perf_counter()
            after(step)
            clock.skip(time.perf_counter() - paused)

    def load_best(self, model: VisionLanguageModel) -> None:
        """Put back the weights that did best on validation, where a run chooses any."""
        best = self.store.load_best()
        if best is not None:
            model.load_state_dict(best.model)
            logger.info("best weights are those of step %d", best.state.step)

    def _validate(self, task: Task, evaluate: Evaluate, select: str | None, log: MetricsLog | None) -> None:
        task.eval()
        numbers = evaluate(task.model)
        task.train()
        logger.info("step %d validation  %s", self.state.step, "  ".join(f"{name} {value:.2f}" for name, value in numbers.items()))
        if log is not None:
            log.write("validation", self.state.step, numbers)
        if select is not None and (self.state.best_value is None or numbers[select] > self.state.best_value):
            self.state.best_step, self.state.best_value = self.state.step, numbers[select]
            self.store.save_best(copy_share(task.model.state_dict(), rank(), world_size()), self.state)
        barrier()

    def _save(self, task: Task, optimizer: Optimizer) -> None:
        model, moments = (copy_share(tensors, rank(), world_size()) for tensors in (task.model.state_dict(), optimizer_tensors(optimizer)))
        self.store.save(model, moments, self.state)

    def _resume(self, task: Task, optimizer: Optimizer) -> None:
        checkpoint = self.store.load_latest()
        if checkpoint is None:
            return
        task.model.load_state_dict(checkpoint.model)
        load_optimizer_tensors(optimizer, dict(checkpoint.optimizer))
        self.state = checkpoint.state
        logger.info("continuing from %s, step %d", checkpoint.folder, self.state.step)


def seed_step(seed: int, step: int) -> None:
    """Seed dropout and stochastic depth as a function of seed, step and rank, so that nothing has to be saved to resume."""
    torch.manual_seed(((seed * 1_000_003 + step) * 4096 + rank()) % 2**63)
