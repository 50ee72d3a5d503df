"""What a run consists of besides its steps: strategy, checkpoints, log, watchdog, and the ways in and out."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate.utils import set_seed

from common.distributed import barrier, is_main, rank, world_size
from dataset.streams.base import Stream
from engine.board import open_board
from engine.checkpoints import CHECKPOINTS, CheckpointStore, TrainState, check_space, shares
from engine.config.schema import RunConfig
from engine.interruption import Interrupted, Interruption
from engine.optimizer import build_optimizer, parameter_groups
from engine.progress import set_up_logging
from engine.strategies import build_strategy
from engine.training import Evaluate, Training
from engine.watchdog import Limits, Watchdog
from engine.watchdog_traces import LOGS, record_collectives
from engine.weights import find_weights
from models.checkpoints import load_checkpoint
from models.initial_weights import load_initial_weights
from models.tasks.base import Task
from models.text_swap import swap_text_encoder
from models.vlm import VisionLanguageModel

logger = logging.getLogger(__name__)


class Engine:
    """Trains a task and keeps it alive: resumes, checkpoints, logs, stops when asked to."""

    def __init__(self, config: RunConfig, output_dir: Path) -> None:
        self.config = config
        self.output_dir = output_dir
        output_dir.mkdir(parents=True, exist_ok=True)
        if config.engine.threads:
            torch.set_num_threads(config.engine.threads)
        record_collectives(output_dir)
        limits = Limits.of(config.engine)
        self.strategy = build_strategy(config.engine, config.optimizer.clip_norm, limits.collective)
        self.console = set_up_logging(output_dir, is_main())
        board = open_board()
        self.interruption = Interruption(board, limits.collective)
        self.interruption.listen()
        self.store = CheckpointStore(output_dir / CHECKPOINTS, config.engine.keep_checkpoints, board)
        self.watchdog = Watchdog(board, rank(), world_size(), limits, output_dir / LOGS)
        self.state = TrainState(world=world_size())
        self.new_parameters: frozenset[str] = frozenset()
        set_seed(config.seed)  # the initial weights; later every step seeds itself

    @property
    def device(self) -> torch.device:
        """Of this rank."""
        return self.strategy.device

    def initialize(self, model: VisionLanguageModel) -> None:
        """Give a new model its starting weights: a checkpoint, or pretrained encoders, as configured."""
        settings = self.config.initialize
        if settings.checkpoint is not None and settings.replace_text:
            self.new_parameters = swap_text_encoder(model, find_weights(Path(settings.checkpoint)), settings.allow_missing)
        elif settings.checkpoint is not None:
            coverage = load_checkpoint(model, find_weights(Path(settings.checkpoint)), settings.allow_missing)
            self.new_parameters = frozenset(coverage.new)
        else:
            filled = load_initial_weights(model, settings.allow_missing)
            self.new_parameters = frozenset(name for name, _ in model.named_parameters()) - filled

    def fit(self, task: Task, streams: Mapping[str, Stream], evaluate: Evaluate | None = None, select: str | None = None) -> None:
        """Train to the configured number of steps, from the latest checkpoint if there is one; with no steps, save the starting weights.

        Args:
            task: model and losses, with its starting weights.
            streams: data of the losses, by the name that the task knows them under.
            evaluate: held-out numbers, every `engine.evaluate_every` steps and at the end.
            select: name of the number (larger is better) that decides which weights are kept as the best.

        Raises:
            UserError: too many records are unusable or steps not finite, or the batch cannot be split over the ranks.
            Requeue: the run was asked to stop, and everything is saved.
        """
        with self.watchdog.watching(self.state.step):
            self._prepare(task)
        if not self.config.schedule.trains:
            self._keep_start()
            return
        Training(self, streams, evaluate, select).run()

    def _keep_start(self) -> None:
        """Save the starting weights of a run that does not train."""
        logger.info("schedule.steps is 0: nothing is trained")
        try:
            if self.store.last_good is None:
                self.save()
            self.store.wait()
        finally:
            self.store.leave()

    def _prepare(self, task: Task) -> None:
        """Hand the task to the strategy, and give it the weights of the latest checkpoint if there is one."""
        settings, weights = self.config.optimizer, sum(parameter.nbytes for parameter in task.model.parameters())
        groups = parameter_groups(task.model.named_parameters(), settings, self.new_parameters)
        self.strategy.prepare(task, build_optimizer(groups, settings))
        checkpoint = self.store.load_latest()
        if checkpoint is None:
            self._look_for_room(weights)
            return
        self.strategy.load(checkpoint.model, checkpoint.optimizer)
        self.state = checkpoint.state
        logger.info("continuing from %s, step %d", checkpoint.folder, self.state.step)
        before, now = self.state.world, world_size()
        if before != now:
            was, are = (f"{count} rank{'s' if count > 1 else ''}" for count in (before, now))
            logger.info("written by %s, now there %s %s: the same samples in the same order", was, "are" if now > 1 else "is", are)
            self.state.world = now

    def _look_for_room(self, weights: int) -> None:
        """Say at the start, not after hours, that the disk cannot hold what will be saved of so many bytes of weights."""
        needed = weights * (3 * (self.config.engine.keep_checkpoints + 1) + 1)  # weights and two moments each, and the best weights
        if is_main() and (problem := check_space(self.store.folder, needed)) is not None:
            logger.warning("checkpoints: %s", problem)

    def save(self) -> None:
        """Begin to write a checkpoint of this moment; all ranks together."""
        snapshot = self.strategy.snapshot(_own, _own)
        self.store.save(snapshot.model, snapshot.optimizer, self.state)

    def save_best(self) -> None:
        """Begin to write the present weights as the best so far; all ranks together."""
        self.store.save_best(self.strategy.snapshot(_own, None).model, self.state)

    def evaluate(self, evaluate: Evaluate, model: VisionLanguageModel) -> dict[str, float]:
        """Numbers of a whole model; on all ranks.

        Raises:
            Interrupted: on all ranks, when the run is to stop.
        """
        try:
            return evaluate(model)
        except Interrupted as interrupted:
            if not interrupted.known:
                self.interruption.leave()
            raise

    @contextmanager
    def best_model(self) -> Iterator[VisionLanguageModel]:
        """The whole model with the weights that did best on validation, where a run chooses any; all ranks enter together."""
        best = self.store.load_best()
        with self.strategy.whole_model() as model:
            if best is not None:
                shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}  # a strategy may have made scalars longer
                model.load_state_dict({name: tensor.reshape(shapes.get(name, tensor.shape)) for name, tensor in best.model.items()})
                self.state.best_step = best.state.step  # what was written, should the disk have failed a later one
                logger.info("best weights are those of step %d", best.state.step)
            yield model
        barrier()


def _own(sizes: Mapping[str, int]) -> list[str]:
    """This rank's share of tensors of these sizes."""
    return shares(sizes, world_size())[rank()]
