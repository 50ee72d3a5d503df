"""Numbers by language and their means."""

from typing import cast

import pytest

from engine.evaluators import Evaluator, Languages
from evaluation.report import ReportPanels
from models.vlm import VisionLanguageModel


class Fixed:
    """An evaluator that knows its numbers."""

    def __init__(self, recall: float) -> None:
        self.recall = recall

    def __call__(self, model: VisionLanguageModel) -> dict[str, float]:
        return {"r_mean": self.recall}

    def baselines(self) -> dict[str, dict[str, float]]:
        return {"chance": {"r_mean": self.recall / 10}}

    def panels(self, model: VisionLanguageModel, samples: int) -> ReportPanels:
        return ReportPanels()


def test_numbers_stand_under_their_language_and_as_means_over_all() -> None:
    languages: dict[str, Evaluator] = {"en": Fixed(80.0), "de": Fixed(40.0)}
    both = Languages(languages)
    assert both(cast(VisionLanguageModel, None)) == pytest.approx({"r_mean": 60.0, "en/r_mean": 80.0, "de/r_mean": 40.0})
    assert both.baselines()["chance"] == pytest.approx({"r_mean": 6.0, "en/r_mean": 8.0, "de/r_mean": 4.0})
