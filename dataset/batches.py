"""Which samples make which batch: a pure function of seed, stream name and global sample index.

An optimizer step has `images_per_batch` samples of every stream, cut into equal groups; micro-batch m of rank r gets the next
`groups / (world * accumulation)` groups, micro-batches outermost. With a fixed number of groups neither the number of ranks, nor of
micro-batches, nor of loader workers changes a row.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from common.errors import BadRecord, FaultKind, UserError
from common.labels import NO_MATCHING
from dataset.activity import SlowRead, doing, noting_slow_reads
from dataset.config import MatchingSettings
from dataset.order import EpochOrder, sample_rng
from dataset.streams.base import Sample, Stream
from dataset.streams.mixture import Mixture, Turns

MAX_TRIES = 100
"""So many records in a row that cannot be used mean that the source is broken."""


@dataclass(frozen=True)
class BatchPlan:
    """The arithmetic of a stream's global batch.

    Raises:
        UserError: the numbers do not divide; the message says which and what would.
    """

    batch_size: int
    """Rows of one optimizer step over all ranks and micro-batches."""
    groups: int | None
    """Equal parts of it; None: one for each rank and micro-batch."""
    world: int
    accumulation: int
    images: int | None = None
    """Images of one optimizer step; None: as many as rows."""
    name: str = "stream"
    """What messages call it, such as streams.regions."""

    def __post_init__(self) -> None:
        shares = self.world * self.accumulation
        how = f"{self.world} ranks x {self.accumulation} accumulated micro-batches = {shares}"
        if self.group_count % shares:
            raise UserError(
                f"{self.name}.groups = {self.group_count} cannot be split over {how}. "
                f"Set groups to {_nearest(self.group_count, shares)}, or change the number of ranks or engine.accumulation."
            )
        origin = f"groups = {self.groups}" if self.groups is not None else f"{self.group_count} groups ({how})"
        for key, value in (("batch_size", self.batch_size), ("max_images", self.image_count)):
            if value % self.group_count:
                raise UserError(
                    f"{self.name}.{key} = {value} cannot be split into {origin}. "
                    f"Set {key} to {_nearest(value, self.group_count)}, or groups to a number that divides {value}."
                )

    @property
    def group_count(self) -> int:
        """Groups of one optimizer step."""
        return self.groups if self.groups is not None else self.world * self.accumulation

    @property
    def image_count(self) -> int:
        """Images of one optimizer step."""
        return self.images if self.images is not None else self.batch_size

    @property
    def images_per_group(self) -> int:
        """Images of one group."""
        return self.image_count // self.group_count

    def groups_of(self, rank: int, micro: int) -> range:
        """The groups, counted within the step, of one micro-batch of one rank."""
        count = self.group_count // (self.world * self.accumulation)
        first = (micro * self.world + rank) * count
        return range(first, first + count)


def _nearest(value: int, divisor: int) -> str:
    """The multiples of `divisor` around `value`, in words."""
    below, above = value // divisor * divisor, math.ceil(value / divisor) * divisor
    return f"{below} or {above}" if below else str(above)


@dataclass(frozen=True)
class Fault:
    """A record that could not be used."""

    kind: FaultKind
    text: str
    """What is wrong with which record, in one line."""


@dataclass(frozen=True)
class StreamBatch:
    """One micro-batch of one stream."""

    tensors: dict[str, Tensor]
    stream: str
    """Name of the stream."""
    seen: int
    """Records read for it, those that could not be used included."""
    faults: tuple[Fault, ...] = ()
    """The records that could not be used."""
    slow: tuple[SlowRead, ...] = ()
    """Reads that took too long."""
    keys: tuple[str, ...] = ()
    """Names of the records in it, for messages."""

    def pin_memory(self) -> StreamBatch:
        """The same in page-locked memory; the data loader calls it."""
        return replace(self, tensors={key: tensor.pin_memory() for key, tensor in self.tensors.items()})


class MixedBatches(Dataset[dict[str, StreamBatch]]):
    """The micro-batches of one rank; item `step * accumulation + micro` holds one batch of every stream.

    Args:
        streams: by name.
        seed: of the run.
        rank, world: this process and how many there are.
        accumulation: micro-batches of one optimizer step.
        matching: in which steps image-text matching is learned; None: in all.

    Raises:
        UserError: a batch cannot be split evenly, or a stream has no records.
    """

    def __init__(
        self,
        streams: dict[str, Stream],
        seed: int,
        rank: int = 0,
        world: int = 1,
        accumulation: int = 1,
        matching: MatchingSettings | None = None,
    ) -> None:
        self.streams = streams
        self.matching = matching or MatchingSettings()
        self.seed = seed
        self.rank = rank
        self.accumulation = accumulation
        self.plans: dict[str, BatchPlan] = {}
        self.orders: dict[str, EpochOrder] = {}
        self.parts: dict[str, Stream] = {}
        self.turns: dict[str, Turns] = {}
        for name, stream in streams.items():
            if len(stream) == 0:
                raise UserError(f"stream {name} has no records.")
            images = stream.images_per_batch if stream.images_per_batch != stream.rows_per_batch else None
            self.plans[name] = BatchPlan(stream.rows_per_batch, stream.groups, world, accumulation, images, name)
            if isinstance(stream, Mixture):
                self.turns[name] = Turns(seed, name, stream.probability)
                self._add_part(f"{name}.clean", stream.clean)
                self._add_part(name, stream.noisy)
            else:
                self._add_part(name, stream)

    def _add_part(self, part: str, stream: Stream) -> None:
        if len(stream) == 0:
            raise UserError(f"stream {part} has no records.")
        self.parts[part] = stream
        # the name enters the seed, so that two streams over the same records do not walk in step
        self.orders[part] = EpochOrder(len(stream), zlib.crc32(f"{self.seed}/{part}".encode()))

    def __getitem__(self, index: int) -> dict[str, StreamBatch]:
        step, micro = divmod(index, self.accumulation)
        return {name: self._batch(name, step, micro) for name in self.streams}

    def matches(self, step: int) -> bool:
        """Whether image-text matching is learned in a step, counted from 0."""
        last, stream = self.matching.until_step, self.matching.clean_stream
        return (last is None or step < last) and (stream is None or self.turns[stream].clean(step))

    def _batch(self, name: str, step: int, micro: int) -> StreamBatch:
        part, turn = name, step
        if name in self.turns:
            part, turn = f"{name}.clean" if self.turns[name].clean(step) else name, self.turns[name].turn(step)
        with doing(f"preparing a batch of stream {part}"), noting_slow_reads() as slow:
            groups, rngs, faults = self._groups(name, part, turn, micro)
            tensors = self.parts[part].collate(groups, rngs)
        if not self.matches(step):
            tensors[NO_MATCHING] = torch.empty(0)
        keys = tuple(sample.key for group in groups for sample in group)
        return StreamBatch(tensors, name, len(keys) + len(faults), tuple(faults), tuple(slow), keys)

    def _groups(self, name: str, part: str, step: int, micro: int) -> tuple[list[list[Sample]], list[np.random.Generator], list[Fault]]:
        """The samples of each group of a micro-batch of a stream from one of its parts, each group's generator, and what was wrong with
        other records."""
        plan = self.plans[name]
        faults: list[Fault] = []
        groups: list[list[Sample]] = []
        rngs: list[np.random.Generator] = []
        for group in plan.groups_of(self.rank, micro):
            first = step * plan.image_count + group * plan.images_per_group
            groups.append([self._sample(part, position, faults) for position in range(first, first + plan.images_per_group)])
            rngs.append(sample_rng(self.seed, f"{part}/groups", step * plan.group_count + group))
        return groups, rngs, faults

    def _sample(self, name: str, position: int, faults: list[Fault]) -> Sample:
        """The sample at a global position, or, where its record cannot be used, the next in the order that can."""
        stream, order = self.parts[name], self.orders[name]
        for candidate in range(position, position + MAX_TRIES):
            epoch, place = divmod(candidate, len(stream))
            try:
                return stream.sample(order.index(place, epoch), sample_rng(self.seed, name, position))
            except BadRecord as error:
                faults.append(Fault(error.kind, str(error)))
        raise UserError(f"stream {name}: {MAX_TRIES} records in a row cannot be used, the last because: {faults[-1].text}")
