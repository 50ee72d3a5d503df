"""Where the time of a step goes: a model, its strategy and its batches with a clock at every border between stages.

The clock is put there for a measurement and taken away after it; a run never sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from engine.bench.marks import OTHER, StageClock
from engine.step import Loaded, Stepper
from engine.strategies import Strategy
from models.tasks.base import Task
from models.vlm import FusionPass, VisionLanguageModel

LOAD, TO_DEVICE, CONTEXT, FUSION = "load", "host to device", "context", "fusion"
HEADS, BACKWARD, UPDATE = "heads and losses", "backward", "clip and optimizer"
MODEL_STAGES = {
    "encode_images": "vision",
    "encode_masked_images": "vision",
    "encode_regions": "vision",
    "codes": "vision",
    "encode_text": "text",
    "context": CONTEXT,
    "fuse": FUSION,
}
"""Methods of the model -> stage."""
ORDER = (LOAD, TO_DEVICE, "vision", CONTEXT, "text", FUSION, HEADS, BACKWARD, UPDATE, OTHER)
"""As they are shown: about the order of a step."""
READERS = {"match_logits": "itm", "masked_lm_logits": "mlm", "boxes": "box"}
"""Methods of the model that read fused states -> whose they are."""


class FusionShares:
    """Which objectives the fusion encoder worked for, by rows x padded tokens of their passes."""

    def __init__(self) -> None:
        self.work: dict[str, float] = {}
        self._fused: list[tuple[Tensor, float]] = []

    def fused(self, passes: list[FusionPass], states: list[Tensor]) -> None:
        """Note the passes of one call and what they became."""
        self._fused += [(state, float(item.text.shape[0] * item.text.shape[1])) for item, state in zip(passes, states, strict=True)]

    def read(self, objective: str, states: Tensor) -> None:
        """An objective reads the states of a pass."""
        for index, (fused, work) in enumerate(self._fused):
            if fused is states:
                self.work[objective] = self.work.get(objective, 0.0) + work
                del self._fused[index]
                return

    def end_step(self) -> None:
        """Let go of states that nobody read."""
        self._fused = []

    def split(self, stages: Mapping[str, float]) -> dict[str, float]:
        """The stages in `ORDER`, fusion divided among its passes; of matching a third is for the true pairs, two for the negatives."""
        total = sum(self.work.values())
        found: dict[str, float] = {}
        for name, value in sorted(stages.items(), key=lambda item: ORDER.index(item[0])):
            if name != FUSION or not total:
                found[name] = value
                continue
            parts = {"itm positive": self.work.get("itm", 0.0) / 3, "itm negatives": self.work.get("itm", 0.0) * 2 / 3}
            parts |= {key: self.work.get(key, 0.0) for key in ("mlm", "box")}
            found |= {f"{FUSION}: {part}": value * work / total for part, work in parts.items() if work}
        return found


class StagedStepper(Stepper):
    """A stepper that tells the clock when it copies a batch to the device."""

    clock: StageClock

    def _on_device(self, loaded: Loaded) -> dict[str, dict[str, Tensor]]:
        with self.clock.stage(TO_DEVICE):
            return super()._on_device(loaded)


@contextmanager
def staged_task(task: Task, clock: StageClock, shares: FusionShares) -> Iterator[None]:
    """A task whose forward pass tells the clock its stages."""
    model: VisionLanguageModel = task.model
    wrappers: list[tuple[Any, str, Callable[..., Any]]] = [(task, "forward", clock.timed(HEADS, task.forward))]
    for method, stage in MODEL_STAGES.items():
        call = _noting_fused(model.fuse, shares) if method == "fuse" else getattr(model, method)
        wrappers.append((model, method, clock.timed(stage, call)))
    wrappers += [(model, method, _noting_read(getattr(model, method), name, shares)) for method, name in READERS.items()]
    with _replaced(wrappers):
        yield


@contextmanager
def staged_strategy(strategy: Strategy, clock: StageClock, shares: FusionShares) -> Iterator[None]:
    """A prepared strategy and its task that tell the clock their stages."""
    parts = {"backward": BACKWARD, "update": UPDATE, "keep_in_range": UPDATE}
    wrappers: list[tuple[Any, str, Callable[..., Any]]] = [
        (strategy, method, clock.timed(stage, getattr(strategy, method))) for method, stage in parts.items()
    ]
    with staged_task(strategy.task, clock, shares), _replaced(wrappers):
        yield


@contextmanager
def _replaced(wrappers: list[tuple[Any, str, Callable[..., Any]]]) -> Iterator[None]:
    """Objects with other methods, for a while."""
    missing = object()
    before = [(owner, name, vars(owner).get(name, missing)) for owner, name, _ in wrappers]
    for owner, name, call in wrappers:
        setattr(owner, name, call)
    try:
        yield
    finally:
        for owner, name, old in before:
            if old is missing:
                delattr(owner, name)
            else:
                setattr(owner, name, old)


def _noting_fused(fuse: Callable[..., list[Tensor]], shares: FusionShares) -> Callable[..., list[Tensor]]:
    def call(vision: Any, passes: list[FusionPass], *rest: Any, **named: Any) -> list[Tensor]:
        states = fuse(vision, passes, *rest, **named)
        shares.fused(passes, states)
        return states

    return call


def _noting_read(read: Callable[..., Any], objective: str, shares: FusionShares) -> Callable[..., Any]:
    def call(fused: Tensor, *rest: Any, **named: Any) -> Any:
        shares.read(objective, fused)
        return read(fused, *rest, **named)

    return call
