"""Zero-shot classification of images, and attributes of objects, by contrastive features."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from common.distributed import is_main
from common.errors import UserError
from common.files import replace_file
from dataset.config import ClassificationData
from dataset.streams.base import image_tensor
from dataset.tasks.classification import class_names, classification_reader
from dataset.tasks.labelled import LabelledSet
from dataset.tasks.ovad import OvadSet, collate_pictures, read_ovad
from dataset.tasks.prompts import attribute_prompts, class_prompts, read_lines
from dataset.tasks.zero_shot_config import ZeroShotAttributes, ZeroShotClasses
from dataset.text import pre_caption
from dataset.tokenizers import encode_texts
from engine.config.zero_shot import ZeroShotConfig
from engine.evaluators.base import Inputs, share_of
from evaluation.attributes import attribute_map, chance_map
from evaluation.classification import write_labels
from evaluation.report import ReportPanels
from evaluation.scores import score
from models.tasks.zero_shot import class_scores, image_features, prompt_features, region_features
from models.vlm import VisionLanguageModel


class Question(Protocol):
    """What is asked about images: the data, the prompts, and the numbers that scores give."""

    prompts: list[list[str]]
    """Of each class or attribute."""

    def items(self) -> Dataset[Any]:
        """The images."""
        ...

    def collate(self, items: list[Any]) -> dict[str, Tensor]:
        """Images as a batch: image, and of regions image_index and patch_mask."""
        ...

    def numbers(self, scores: np.ndarray) -> dict[str, float]:
        """Metrics of scores [R, C]."""
        ...

    def baselines(self) -> dict[str, dict[str, float]]:
        """Those of guesses that do not look."""
        ...

    def write(self, folder: Path, scores: np.ndarray) -> None:
        """Write what was predicted."""
        ...


class ClassQuestion:
    """Which class an image is of."""

    def __init__(self, data: ZeroShotClasses, image_size: int) -> None:
        known = ClassificationData(source=data.source, test=data.split, test_crop=data.test_crop, batch_size=1)
        self.names = class_names(known)
        self.data = LabelledSet("test", known, classification_reader(known, "image"), image_size)
        words = [name.replace("_", " ") for name in self.names]
        if data.class_names is not None:
            words = read_lines("data.class_names", Path(data.class_names))
            if len(words) != len(self.names):
                raise UserError(f"data.class_names: {data.class_names} has {len(words)} lines for {len(self.names)} classes.")
        templates = read_lines("data.templates", Path(data.templates)) if isinstance(data.templates, str) else data.templates
        self.prompts = class_prompts(words, templates)

    def items(self) -> Dataset[Any]:
        """See `Question`."""
        return self.data

    def collate(self, items: list[Any]) -> dict[str, Tensor]:
        """See `Question`."""
        return {"image": image_tensor([item["images"][0] for item in items])}

    def numbers(self, scores: np.ndarray) -> dict[str, float]:
        """Accuracy of the best class, and how often the right one is among the best five."""
        labels = np.array(self.data.labels)
        best = np.argsort(-scores, axis=1, kind="stable")[:, : min(5, scores.shape[1])]
        return score(best[:, 0].tolist(), self.data.labels, ["acc", "mean_per_class"]) | {
            "acc_top5": 100.0 * float((best == labels[:, None]).any(axis=1).mean())
        }

    def baselines(self) -> dict[str, dict[str, float]]:
        """A random class."""
        count = len(self.names)
        return {"chance": {"acc": 100.0 / count, "mean_per_class": 100.0 / count, "acc_top5": 100.0 * min(5, count) / count}}

    def write(self, folder: Path, scores: np.ndarray) -> None:
        """As in the task classification, with cosines."""
        keys = [record.key for record in self.data.records]
        write_labels(folder / "test.json", keys, scores.argmax(axis=1).tolist(), scores.tolist(), self.names)


class AttributeQuestion:
    """Which attributes an object has."""

    def __init__(self, data: ZeroShotAttributes, image_size: int, patch_size: int) -> None:
        self.file = read_ovad(Path(data.annotations))
        self.data = OvadSet(self.file.pictures, Path(data.image_root), image_size, patch_size, data.protocol)
        self.prompts = attribute_prompts(self.file.attributes, data.noun)
        self.groups = [attribute.group for attribute in self.file.attributes]

    def items(self) -> Dataset[Any]:
        """See `Question`."""
        return self.data

    def collate(self, items: list[Any]) -> dict[str, Tensor]:
        """See `Question`."""
        return collate_pictures(items)

    def numbers(self, scores: np.ndarray) -> dict[str, float]:
        """Mean average precision over all attributes, and over the frequent, the less so, and the rare."""
        return attribute_map(scores, self.file.labels, self.groups)

    def baselines(self) -> dict[str, dict[str, float]]:
        """The share of objects that have an attribute."""
        return {"chance": chance_map(self.file.labels, self.groups)}

    def write(self, folder: Path, scores: np.ndarray) -> None:
        """A list of scores for each object, in the order of the file."""
        names = [f"{attribute.kind}:{'/'.join(attribute.words)}" for attribute in self.file.attributes]
        replace_file(folder / "attributes.json", json.dumps({"attributes": names, "scores": scores.round(6).tolist()}) + "\n")


class ZeroShotEvaluator:
    """Compares images with prompts.

    Args:
        question: what is asked.
        config: of the run.
        inputs: how images and texts become a model's inputs.
        predictions: the folder that scores are written to.
    """

    def __init__(self, question: Question, config: ZeroShotConfig, inputs: Inputs, predictions: Path) -> None:
        self.question, self.config, self.inputs, self.predictions = question, config, inputs, predictions
        texts = config.texts
        self.prompts = [pre_caption(text, texts.max_words, texts.punctuation) for texts_of in question.prompts for text in texts_of]

    def __call__(self, model: VisionLanguageModel) -> dict[str, float]:
        """Metrics of the question."""
        prompts = prompt_features(model, self._texts())
        counts = [len(prompts_of) for prompts_of in self.question.prompts]
        items: Any = self.question.items()
        share = Subset(items, list(share_of(len(items))))
        loader = DataLoader(share, self.config.evaluation.batch_size, collate_fn=self.question.collate)
        found = [
            class_scores(self._features(model, batch), prompts, counts, self.config.data.ensemble).cpu() for batch in self._batches(loader)
        ]
        rows = self.inputs.interruption.gather(torch.cat(found) if found else None)
        scores = torch.cat([row for row in rows if row is not None]).numpy()
        if is_main():
            self.question.write(self.predictions, scores)
        return self.question.numbers(scores)

    def baselines(self) -> dict[str, dict[str, float]]:
        """See `Evaluator`."""
        return self.question.baselines()

    def panels(self, model: VisionLanguageModel, samples: int) -> ReportPanels:
        """None."""
        return ReportPanels()

    def _batches(self, loader: Iterable[dict[str, Tensor]]) -> Iterable[dict[str, Tensor]]:
        return ({name: value.to(self.inputs.device) for name, value in batch.items()} for batch in self.inputs.stoppable(loader))

    def _features(self, model: VisionLanguageModel, batch: dict[str, Tensor]) -> Tensor:
        if "patch_mask" in batch:
            return region_features(model, batch["image"], batch["image_index"], batch["patch_mask"])
        return image_features(model, batch["image"])

    def _texts(self) -> Iterable[tuple[Tensor, Tensor]]:
        size, encode = (
            self.config.evaluation.text_batch_size,
            partial(encode_texts, self.inputs.tokenizer, max_tokens=self.inputs.max_tokens),
        )
        for start in range(0, len(self.prompts), size):
            ids, mask = encode(texts=self.prompts[start : start + size])
            yield ids.to(self.inputs.device), mask.to(self.inputs.device)


def zero_shot_question(config: ZeroShotConfig) -> Question:
    """What the settings ask.

    Raises:
        UserError: a file is missing or malformed.
    """
    data, vision = config.data, config.model.vision
    if isinstance(data, ZeroShotClasses):
        return ClassQuestion(data, vision.image_size)
    return AttributeQuestion(data, vision.image_size, vision.stride)
