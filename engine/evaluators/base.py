"""What every evaluator offers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Protocol, TypeVar

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from common.distributed import rank, world_size
from engine.config.schema import RunConfig
from engine.interruption import Interruption
from engine.texts import longest_text, tokenizer_of
from evaluation.report import ReportPanels
from models.vlm import VisionLanguageModel

Item = TypeVar("Item")


@dataclass(frozen=True)
class Inputs:
    """How images and texts become a model's inputs, and what may stop an evaluation."""

    tokenizer: PreTrainedTokenizerBase
    max_tokens: int
    image_size: int
    """Side of the square input in pixels."""
    device: torch.device
    interruption: Interruption
    frames: int | None = None
    """Of a clip; None where the model takes images alone."""

    @classmethod
    def of(cls, config: RunConfig, device: torch.device, interruption: Interruption) -> Inputs:
        """What a run's settings say.

        Raises:
            UserError: there is no tokenizer at the path given.
        """
        vision = config.model.vision
        return cls(tokenizer_of(config), longest_text(config), vision.image_size, device, interruption, vision.frames)

    def stoppable(self, batches: Iterable[Item]) -> Iterator[Item]:
        """The batches of an evaluation's share; ends with `Interrupted` when the run is to stop. For what all ranks do, not one alone."""
        for batch in batches:
            self.interruption.beat()
            yield batch


class Evaluator(Protocol):
    """One data set and the numbers it gives."""

    def __call__(self, model: VisionLanguageModel) -> dict[str, float]:
        """Metrics of a model in evaluation mode; called on all ranks, the same on all."""
        ...

    def baselines(self) -> dict[str, dict[str, float]]:
        """Name of a guess that does not look -> its metrics."""
        ...

    def panels(self, model: VisionLanguageModel, samples: int) -> ReportPanels:
        """Pictures for the report; called on the main rank after evaluation."""
        ...


class Probes:
    """Several evaluators as one; each one's numbers stand under its name."""

    def __init__(self, evaluators: Mapping[str, Evaluator]) -> None:
        self.evaluators = dict(evaluators)

    def __call__(self, model: VisionLanguageModel) -> dict[str, float]:
        """Metrics of all, as "name/metric"."""
        return {f"{name}/{key}": value for name, evaluator in self.evaluators.items() for key, value in evaluator(model).items()}

    def baselines(self) -> dict[str, dict[str, float]]:
        """Baselines of all, with their metrics as "name/metric"."""
        merged: dict[str, dict[str, float]] = {}
        for name, evaluator in self.evaluators.items():
            for guess, metrics in evaluator.baselines().items():
                merged.setdefault(guess, {}).update({f"{name}/{key}": value for key, value in metrics.items()})
        return merged

    def panels(self, model: VisionLanguageModel, samples: int) -> ReportPanels:
        """Pictures of all."""
        found = [evaluator.panels(model, samples) for evaluator in self.evaluators.values()]
        kinds = [field.name for field in fields(ReportPanels)]
        return ReportPanels(**{kind: [panel for panels in found for panel in getattr(panels, kind)] for kind in kinds})


def spread(places: Sequence[int] | np.ndarray, count: int) -> list[int]:
    """At most so many of the places, evenly spread from the first to the last."""
    return np.asarray(places, dtype=int)[np.linspace(0, len(places) - 1, min(count, len(places)), dtype=int)].tolist()


def right_and_wrong(right: np.ndarray, samples: int) -> tuple[list[int], list[int]]:
    """Places to show of a mask [R], where it is True and where it is False: half and half, each spread over all of its kind; where one
    kind runs out, more of the other."""
    found, missed = np.flatnonzero(right), np.flatnonzero(~right)
    few = min(len(missed), max(samples // 2, samples - len(found)))
    return spread(found, samples - few), spread(missed, few)


def share_of(count: int) -> range:
    """This rank's contiguous share of `count` items; the shares of all ranks, in rank order, are all items."""
    return range(count * rank() // world_size(), count * (rank() + 1) // world_size())
