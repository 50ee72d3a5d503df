"""Labels of held-out images, texts, or texts with images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from dataset.config import ClassificationData
from dataset.tasks.labelled import LabelledSet
from engine.evaluators.labelled import LabelledEvaluator
from evaluation.classification import write_labels
from models.tasks.classification import Classifier, predict_classes
from models.vlm import VisionLanguageModel


class ClassEvaluator(LabelledEvaluator):
    """Accuracy, and predictions with the probability of every label."""

    def label_names(self) -> Sequence[str]:
        """See `LabelledEvaluator`."""
        config = self.held_out.data
        assert isinstance(config, ClassificationData), "the data of this task"
        return config.labels

    def _chances(self, model: VisionLanguageModel, batch: dict[str, Tensor]) -> Tensor:
        assert isinstance(model, Classifier), "the task classification has no other"
        return predict_classes(model, batch)

    def _write(self, folder: Path, data: LabelledSet, chances: Tensor) -> None:
        keys = [record.key for record in data.records]
        write_labels(folder / f"{data.split}.json", keys, chances.argmax(dim=1).tolist(), chances.tolist(), self.label_names())
