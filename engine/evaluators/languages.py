"""Retrieval in several languages: a gallery each."""

from collections.abc import Mapping

from dataset.tasks.galleries import GallerySource
from engine.config.schema import RetrievalEvaluation
from engine.evaluators.base import Evaluator, Inputs, Probes
from engine.evaluators.retrieval import RetrievalEvaluator
from models.vlm import VisionLanguageModel


class Languages(Probes):
    """One evaluator for each language. Every number stands under its language, and its mean over the languages under its own name."""

    def __call__(self, model: VisionLanguageModel) -> dict[str, float]:
        """Metrics of all, as "language/metric" and "metric"."""
        return self._with_means(super().__call__(model))

    def baselines(self) -> dict[str, dict[str, float]]:
        """Baselines of all, named likewise."""
        return {guess: self._with_means(metrics) for guess, metrics in super().baselines().items()}

    def _with_means(self, numbers: dict[str, float]) -> dict[str, float]:
        names = dict.fromkeys(name.split("/", 1)[1] for name in numbers)
        return {name: sum(numbers[f"{language}/{name}"] for language in self.evaluators) / len(self.evaluators) for name in names} | numbers


def retrieval_evaluator(sources: Mapping[str, GallerySource], inputs: Inputs, settings: RetrievalEvaluation) -> Evaluator:
    """What evaluates a split of galleries by language, or of a single one under the name ""."""
    evaluators = {language: RetrievalEvaluator(source, inputs, settings) for language, source in sources.items()}
    return evaluators[""] if set(evaluators) == {""} else Languages(evaluators)
