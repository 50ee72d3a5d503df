"""Labels or numbers of held-out images, texts, or texts with images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from common.scores import Score
from dataset.config import ClassificationData
from dataset.tasks.classification import class_names
from dataset.tasks.glue import submission_name
from dataset.tasks.labelled import LabelledSet
from dataset.tasks.sources_config import GlueSource
from engine.evaluators.labelled import HeldOut, LabelledEvaluator
from evaluation.classification import write_glue, write_labels
from evaluation.scores import score
from models.tasks.classification import Classifying, predict_classes
from models.vlm import VisionLanguageModel


class ClassEvaluator(LabelledEvaluator):
    """Scores, and predictions with the probability of every label; of GLUE's test sets in the form that its server takes.

    Args:
        split: validation or test.
        held_out: where the records come from.
        metrics: what is computed.
    """

    def __init__(self, split: str, held_out: HeldOut, metrics: Sequence[Score] = ("acc",)) -> None:
        super().__init__(split, held_out)
        assert isinstance(held_out.data, ClassificationData), "the data of this task"
        self.source = held_out.data.source
        self.metrics = metrics
        self.names = class_names(held_out.data)

    def label_names(self) -> Sequence[str]:
        """See `LabelledEvaluator`."""
        return self.names

    def _chances(self, model: VisionLanguageModel, batch: dict[str, Tensor]) -> Tensor:
        assert isinstance(model, Classifying), "the task classification has no other"
        return predict_classes(model, batch)

    def _predicted(self, chances: Tensor) -> list[int] | list[float]:
        return super()._predicted(chances) if self.names else chances[:, 0].tolist()

    def _guess(self) -> tuple[str, int | float]:
        if self.names:
            return super()._guess()
        labels = self.held_out.train_labels
        return "mean", sum(labels) / len(labels)

    def _numbers(self, data: LabelledSet, predicted: Sequence[int | float]) -> dict[str, float]:
        return score(predicted, data.labels, self.metrics)

    def _write(self, folder: Path, data: LabelledSet, chances: Tensor) -> None:
        keys, predicted = [record.key for record in data.records], self._predicted(chances)
        if isinstance(self.source, GlueSource) and not data.answered:
            write_glue(folder / f"{submission_name(self.source.task, data.file.name)}.tsv", keys, predicted, self.names)
        elif self.names:
            write_labels(folder / f"{data.split}.json", keys, [int(label) for label in predicted], chances.tolist(), self.names)
        else:
            write_labels(folder / f"{data.split}.json", keys, [0] * len(keys), chances.tolist(), ["value"])
