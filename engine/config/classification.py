"""Settings of classification: entailment (SNLI-VE, XVNLI), GLUE, ImageNet and its like, and one label of any other images, texts, or texts
with images."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from common.scores import Score
from common.settings import Settings
from dataset.config import ClassificationData, Positive
from dataset.tasks.glue import TASKS
from dataset.tasks.sources_config import GlueSource, ImageFolderSource, TorchvisionSource
from dataset.tasks.torchvision_sets import known_set
from engine.config.errors import raise_problems
from engine.config.schema import ConceptTaskConfig, StreamSettings
from models.tasks.classification import ClassLoss, HeadConfig


class ClassificationEvaluation(Settings):
    """Labels of held-out records."""

    batch_size: Positive = 64
    """Records at once."""
    metrics: Annotated[list[Score], Field(min_length=1)] | None = None
    """What is computed, times 100; the first chooses the best weights. null: what is usual for the source, else acc."""


class ClassificationConfig(ConceptTaskConfig):
    """Fine-tuning and evaluation of a classification head."""

    task: Literal["classification"] = "classification"  # pyright: ignore[reportIncompatibleVariableOverride]
    data: ClassificationData
    head: HeadConfig
    loss: ClassLoss = ClassLoss()
    evaluation: ClassificationEvaluation = ClassificationEvaluation()

    @model_validator(mode="after")
    def _parts_fit(self) -> "ClassificationConfig":
        head, problems = self.head, []
        expected, known_from = self._classes()
        if head.target == "number":
            if head.classes != 1 or expected:
                problems.append(("head.target", f"head.target number needs head.classes: 1 and no labels; {known_from} {expected or 0}."))
        elif expected is not None and expected != head.classes:
            problems.append(("head.classes", f"head.classes is {head.classes}, but {known_from} {expected}."))
        given = "text" if isinstance(self.data.source, GlueSource) else "image"
        if self.data.source is not None and head.inputs != given:
            problems.append(("head.inputs", f"head.inputs is {head.inputs}, but records of data.source have {given} alone."))
        if head.inputs != "image" and (self.loss.mixup or self.loss.cutmix):
            problems.append(("loss", f"loss.mixup and loss.cutmix mix images alone; head.inputs is {head.inputs}."))
        if self.model.mvp is not None and head != HeadConfig(classes=head.classes, depth="linear"):
            text = "head: MVP (model.mvp) has a single linear layer over texts with images: set depth linear, and nothing else but classes."
            problems.append(("head", text))
        raise_problems(problems)
        return self

    def _classes(self) -> tuple[int | None, str]:
        """How many classes the data has, where that is known without reading it, and from where."""
        match self.data.source:
            case TorchvisionSource():
                return known_set(self.data.source).classes, f"data.source {self.data.source.name} has"
            case GlueSource():
                return len(TASKS[self.data.source.task].labels), f"data.source {self.data.source.task} has"
            case ImageFolderSource():
                return None, ""
            case None:
                return len(self.data.labels), "data.labels names"

    @property
    def metrics(self) -> list[Score]:
        """What is computed; the first chooses the best weights."""
        if self.evaluation.metrics is not None:
            return self.evaluation.metrics
        match self.data.source:
            case TorchvisionSource():
                return list(known_set(self.data.source).metrics)
            case GlueSource():
                return list(TASKS[self.data.source.task].metrics)
            case _:
                return ["acc"]

    def batches(self) -> Mapping[str, StreamSettings]:
        """The labelled records."""
        return {"train": self.data}

    def objective_names(self) -> set[str]:
        """None of pre-training's."""
        return set()
