"""Held-out evaluation: a data set, a model's predictions on it shared over the ranks, metrics, baselines and pictures."""

from engine.evaluators.base import Evaluator, Probes
from engine.evaluators.grounding import GroundingEvaluator
from engine.evaluators.retrieval import RetrievalEvaluator

__all__ = ["Evaluator", "GroundingEvaluator", "Probes", "RetrievalEvaluator"]
