"""Settings of classification: entailment (SNLI-VE, XVNLI), and one label of images, texts, or texts with images."""

from collections.abc import Mapping
from typing import Literal

from pydantic import model_validator

from common.settings import Settings
from dataset.config import ClassificationData, Positive
from engine.config.errors import raise_problems
from engine.config.schema import RunConfig, StreamSettings
from models.tasks.classification import HeadConfig


class ClassificationEvaluation(Settings):
    """Labels of held-out records."""

    batch_size: Positive = 64
    """Records at once."""


class ClassificationConfig(RunConfig):
    """Fine-tuning and evaluation of a classification head."""

    task: Literal["classification"] = "classification"  # pyright: ignore[reportIncompatibleVariableOverride]
    data: ClassificationData
    head: HeadConfig
    evaluation: ClassificationEvaluation = ClassificationEvaluation()

    @model_validator(mode="after")
    def _as_many_labels_as_classes(self) -> "ClassificationConfig":
        named = len(self.data.labels)
        text = f"head.classes is {self.head.classes}, but data.labels names {named}."
        raise_problems([("head.classes", text)] if named != self.head.classes else [])
        return self

    def batches(self) -> Mapping[str, StreamSettings]:
        """The labelled records."""
        return {"train": self.data}

    def objective_names(self) -> set[str]:
        """None of pre-training's."""
        return set()
