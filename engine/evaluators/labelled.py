"""What evaluating statements about pairs and evaluating classification have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from common.distributed import is_main
from dataset.config import LabelledData
from dataset.streams.base import Stream
from dataset.tasks.labelled import LabelledSet, LabelledTrain, Read, collate_labelled
from engine.evaluators.base import Inputs, right_and_wrong, share_of
from evaluation.classification import majority
from evaluation.report import LabelPanel, ReportPanels
from evaluation.scores import score
from models.vlm import VisionLanguageModel

MEAN = "mean"


@dataclass(frozen=True)
class HeldOut:
    """Where the records of an evaluator come from."""

    data: LabelledData
    read: Callable[[Path], Read]
    """From an image folder to what reads a file."""
    inputs: Inputs
    batch_size: int
    train_labels: Sequence[int | float]
    """For the answer of somebody who does not look."""
    predictions: Path | None = None
    """The folder that the predictions on every test set are written to."""


class LabelledEvaluator:
    """Labels of the records of one split; of the test set also those of its languages."""

    def __init__(self, split: str, held_out: HeldOut) -> None:
        names = [split, *(held_out.data.languages if split == "test" else ())]
        self.sets = [LabelledSet(name, held_out.data, held_out.read, held_out.inputs.image_size) for name in names]
        self.held_out = held_out
        self.judged: Tensor | None = None
        """Probabilities [R, C] of the records of the split, once it has been evaluated."""

    def __call__(self, model: VisionLanguageModel) -> dict[str, float]:
        """`acc` in percent; of a language as "language/acc", and "mean/acc" of all languages."""
        numbers: dict[str, float] = {}
        for place, data in enumerate(self.sets):
            chances = self._evaluate(model, data)
            self.judged = chances if place == 0 else self.judged
            found = self._numbers(data, self._predicted(chances)) if data.answered else {}
            numbers |= {name if place == 0 else f"{data.split}/{name}": value for name, value in found.items()}
            if self.held_out.predictions is not None and data.split != "validation" and is_main():
                self._write(self.held_out.predictions, data, chances)
        return _with_mean(numbers)

    def baselines(self) -> dict[str, dict[str, float]]:
        """The most frequent label of the training set, everywhere."""
        name, guess = self._guess()
        numbers: dict[str, float] = {}
        for place, data in enumerate(self.sets):
            found = self._numbers(data, [guess] * len(data)) if data.answered else {}
            numbers |= {metric if place == 0 else f"{data.split}/{metric}": value for metric, value in found.items()}
        return {name: _with_mean(numbers)}

    def panels(self, model: VisionLanguageModel, samples: int) -> ReportPanels:
        """Records judged wrong and as many judged right, each spread over the split; none where labels are numbers, or secret."""
        assert self.judged is not None, "evaluation, which needs all ranks, comes first"
        data, best, names = self.sets[0], self.judged.max(dim=1), self.label_names()
        if not names or not data.answered:
            return ReportPanels()
        right, wrong = right_and_wrong((best.indices == torch.tensor(data.labels)).numpy(), samples)
        chosen = sorted([*right, *wrong])
        found: list[LabelPanel] = []
        for item, predicted, chance in ((data[index], int(best.indices[index]), float(best.values[index])) for index in chosen):
            text = item["text"] or ""
            words = text if isinstance(text, str) else " / ".join(text)
            found.append(LabelPanel(item["images"], words, names[predicted], chance, names[int(item["label"])]))
        return ReportPanels(labels=found)

    def label_names(self) -> Sequence[str]:
        """What the labels 0, 1, ... are called; nothing where they are numbers."""
        raise NotImplementedError

    def _evaluate(self, model: VisionLanguageModel, data: LabelledSet) -> Tensor:
        """Probabilities [R, C] of all records, computed in shares."""
        inputs = self.held_out.inputs
        collate = partial(collate_labelled, tokenizer=inputs.tokenizer, max_tokens=inputs.max_tokens)
        share = Subset(data, list(share_of(len(data))))
        batches = DataLoader(share, self.held_out.batch_size, collate_fn=collate)  # pyright: ignore[reportArgumentType]
        moved = ({name: value.to(inputs.device) for name, value in batch.items()} for batch in inputs.stoppable(batches))
        rows = [self._chances(model, batch).cpu() for batch in moved]
        found = inputs.interruption.gather(torch.cat(rows) if rows else None)
        return torch.cat([part for part in found if part is not None])

    def _chances(self, model: VisionLanguageModel, batch: dict[str, Tensor]) -> Tensor:
        """Probabilities [R, C] of one batch."""
        raise NotImplementedError

    def _predicted(self, chances: Tensor) -> list[int] | list[float]:
        """What is predicted of each record."""
        return chances.argmax(dim=1).tolist()

    def _guess(self) -> tuple[str, int | float]:
        """What somebody who does not look would predict of all records, and its name."""
        return "majority", majority([int(label) for label in self.held_out.train_labels])

    def _numbers(self, data: LabelledSet, predicted: Sequence[int | float]) -> dict[str, float]:
        return score(predicted, data.labels, ["acc"])

    def _write(self, folder: Path, data: LabelledSet, chances: Tensor) -> None:
        """Write a test set's predictions."""
        raise NotImplementedError


def train_labels(stream: Stream) -> list[int | float]:
    """The labels of a training stream of labelled records."""
    assert isinstance(stream, LabelledTrain), "these tasks train on no other"
    return stream.labels


def _with_mean(numbers: dict[str, float]) -> dict[str, float]:
    """Add the mean accuracy of the languages, where there are several."""
    languages = [value for name, value in numbers.items() if name.endswith("/acc")]
    return numbers | ({f"{MEAN}/acc": sum(languages) / len(languages)} if len(languages) > 1 else {})
