"""Truth of held-out statements about two images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from dataset.tasks.labelled import LabelledSet
from engine.evaluators.labelled import LabelledEvaluator
from evaluation.classification import consistency, write_statements
from models.tasks.nlvr import Judging, predict_statements
from models.vlm import VisionLanguageModel


class StatementEvaluator(LabelledEvaluator):
    """Adds `consistency`: percent of sentences that are judged right on all their image pairs (NLVR2)."""

    def label_names(self) -> Sequence[str]:
        """See `LabelledEvaluator`."""
        return "False", "True"

    def _chances(self, model: VisionLanguageModel, batch: dict[str, Tensor]) -> Tensor:
        assert isinstance(model, Judging), "the task nlvr has no other"
        true = predict_statements(model, batch["image"], batch["text_ids"], batch["text_mask"])
        return torch.stack([1 - true, true], dim=1)

    def _numbers(self, data: LabelledSet, predicted: Sequence[int | float]) -> dict[str, float]:
        groups = [record.group for record in data.records]
        return super()._numbers(data, predicted) | {"consistency": consistency(predicted, data.labels, groups)}

    def _write(self, folder: Path, data: LabelledSet, chances: Tensor) -> None:
        keys = [record.key for record in data.records]
        write_statements(folder / f"{data.split}.csv", keys, chances.argmax(dim=1).tolist())
