"""From a config and a machine to a plan: memory, the largest batch of each rung, step time, days."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common.errors import UserError
from dataset.batches import BatchPlan
from dataset.config import RegionTextStream
from engine.bench.flops import FlopCount
from engine.blocks import share_of
from engine.config.schema import PretrainConfig, RunConfig
from engine.planning.cost import Operations, Speed
from engine.planning.fake import FakeStep
from engine.planning.ladder import KEPT_FREE, SHARES, Memory, Rung, measure_rung, memory_of
from engine.planning.shapes import Shapes, TextLengths, share, step_shapes


@dataclass(frozen=True)
class Machine:
    """What a run would have."""

    speed: Speed
    memory: int
    """Bytes of one GPU."""

    @property
    def available(self) -> float:
        """Bytes that a plan may fill."""
        return self.memory * (1 - KEPT_FREE)


@dataclass(frozen=True)
class RungPlan:
    """The config's batch on one rung."""

    rung: Rung
    largest: int
    """Most texts of the first stream in a micro-batch of one GPU; 0 where not one fits."""
    accumulation: int | None
    """Least number of micro-batches with which the config's batch fits and can be divided; None: it fits with none."""
    bytes: float | None
    """On one GPU with so many micro-batches."""
    seconds: float | None
    """Of one optimizer step."""
    texts_per_second: float | None
    """All streams, all GPUs."""


@dataclass(frozen=True)
class Plan:
    """What `run.py plan` says."""

    config: RunConfig
    machine: Machine
    lengths: TextLengths
    parameters: int
    shapes: Shapes
    """Of the whole optimizer step, at the assumed lengths."""
    streams: Mapping[str, Operations]
    memory: Memory
    rungs: Sequence[RungPlan]
    records: int | None

    @property
    def texts(self) -> int:
        """Of one optimizer step, all streams; where there are images alone, the images."""
        return sum(shape.rows for shape in self.shapes.values())

    @property
    def operations(self) -> Operations:
        """Of one optimizer step, all streams."""
        return Operations.sum(self.streams.values())

    @property
    def per_gpu(self) -> int:
        """Texts of the first stream that one GPU has in an optimizer step."""
        return -(-next(iter(self.shapes.values())).rows // self.machine.speed.gpus)

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        first = next(iter(self.shapes.values()))
        return self.config.schedule.total_steps(self.records or 0, first.images)

    @property
    def best(self) -> RungPlan | None:
        """The rung with most texts a second; of equals the one that recomputes least."""
        fitting = [rung for rung in self.rungs if rung.texts_per_second]
        return max(fitting, key=lambda each: each.texts_per_second or 0.0, default=None)

    @property
    def configured(self) -> RungPlan:
        """The rung that the config is on."""
        return next(each for each in self.rungs if each.rung.share == share_of(self.config.engine.activation_checkpointing))


def make_plan(
    config: RunConfig, machine: Machine, lengths: TextLengths, records: int | None = None, shares: Sequence[float] = SHARES
) -> Plan:
    """Plan a run; no memory is taken for the model and no GPU touched.

    Args:
        config: of any task; nothing that it points at need exist.
        machine: GPUs, their memory and speed.
        lengths: of texts, for the operations; memory is planned for batches of the longest texts.
        records: of the first stream; needed where the schedule counts epochs.
        shares: rungs of the ladder; the config's own is added.

    Raises:
        UserError: the batch cannot be divided among the GPUs, the number of steps is not known, or the model alone does not fit.
    """
    if config.schedule.epochs is not None and records is None:
        raise UserError("schedule.epochs counts passes over records, which plan does not read: add --records N, or set schedule.steps.")
    gpus = machine.speed.gpus
    _divide(config, gpus, config.engine.accumulation)
    shapes = step_shapes(config, lengths)
    step = FakeStep(config)
    memory = memory_of(config, step, gpus)
    _need_room(config, machine, memory)
    streams = _operations(config, shapes, gpus)
    operations = Operations.sum(streams.values())
    longest, per_gpu = step_shapes(config, None), -(-next(iter(shapes.values())).rows // gpus)
    wanted = sorted({*shares, share_of(config.engine.activation_checkpointing)})
    rungs = [measure_rung(step, longest, per_gpu, each) for each in wanted]
    texts = sum(shape.rows for shape in shapes.values())
    plans = [on_rung(config, machine, memory, operations, rung, per_gpu, texts) for rung in rungs]
    parameters = sum(parameter.numel() for parameter in step.task().model.parameters())
    return Plan(config, machine, lengths, parameters, shapes, streams, memory, plans, records)


def _need_room(config: RunConfig, machine: Machine, memory: Memory) -> None:
    """Raises UserError where not even the model fits."""
    needed = sum(memory.states.values()) + sum(memory.allowance.values())
    if needed > machine.available:
        have, least = machine.memory / 2**30, needed / (1 - KEPT_FREE) / 2**30
        where = f"with engine.strategy: {config.engine.strategy} and --gpus {machine.speed.gpus}"
        raise UserError(
            f"--memory: {have:.3g} GiB do not hold the model: weights, gradients, optimizer state and libraries alone need {least:.3g} GiB "
            f"on each GPU {where}. Take larger GPUs, or engine.strategy: fsdp over more of them."
        )


def _operations(config: RunConfig, shapes: Shapes, gpus: int) -> dict[str, Operations]:
    """Of a whole step, by stream: one GPU's part, as often as there are GPUs."""
    first = next(iter(shapes.values())).rows
    counter, per_gpu = FlopCount(config), -(-first // gpus)
    side = config.model.vision.image_size
    found = {}
    for name, shape in share(shapes, per_gpu).items():
        stages = counter.count({name: shape.tensors(side, "meta")})
        found[name] = Operations({stage: value * first / per_gpu for stage, value in stages.items()})
    return found


def on_rung(config: RunConfig, machine: Machine, memory: Memory, operations: Operations, rung: Rung, per_gpu: int, texts: int) -> RungPlan:
    """The config's batch on one rung.

    Args:
        config: of the run.
        machine: GPUs and their memory.
        memory: what each GPU holds whatever the batch.
        operations: of a whole step.
        rung: measured.
        per_gpu: texts of the first stream that one GPU has in a step.
        texts: of all streams and GPUs in a step.
    """
    largest = memory.largest(rung, machine.available)
    accumulation = _least_accumulation(config, machine.speed.gpus, per_gpu, largest)
    if accumulation is None:
        return RungPlan(rung, largest, None, None, None, None)
    count = operations.step + operations.recomputed(rung.share)
    if accumulation > 1 and config.engine.accumulate_contrast == "batch" and "itc" in config.objective_names():
        count += operations.collected
    seconds = machine.speed.step_seconds(count)
    return RungPlan(rung, largest, accumulation, memory.total(rung, -(-per_gpu // accumulation)), seconds, texts / seconds)


def _least_accumulation(config: RunConfig, gpus: int, per_gpu: int, largest: int) -> int | None:
    """At least the config's own."""
    for count in range(config.engine.accumulation, per_gpu + 1):
        if -(-per_gpu // count) <= largest and _divides(config, gpus, count):
            return count
    return None


def _divides(config: RunConfig, gpus: int, accumulation: int) -> bool:
    try:
        _divide(config, gpus, accumulation)
    except UserError:
        return False
    return True


def _divide(config: RunConfig, gpus: int, accumulation: int) -> None:
    """Raises UserError where a stream's batch cannot be divided among GPUs and micro-batches."""
    for name, settings in config.batches().items():
        images = settings.max_images if isinstance(settings, RegionTextStream) else None
        key = f"streams.{name}" if isinstance(config, PretrainConfig) else "data"
        BatchPlan(settings.batch_size, settings.groups, gpus, accumulation, images, key)
