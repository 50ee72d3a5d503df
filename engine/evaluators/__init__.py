"""Held-out evaluation: a data set, a model's predictions on it shared over the ranks, metrics, baselines and pictures."""

from engine.evaluators.base import Evaluator, Inputs, Probes
from engine.evaluators.grounding import GroundingEvaluator
from engine.evaluators.languages import Languages, retrieval_evaluator
from engine.evaluators.regions import RegionPictures
from engine.evaluators.retrieval import RetrievalEvaluator

__all__ = [
    "Evaluator",
    "GroundingEvaluator",
    "Inputs",
    "Languages",
    "Probes",
    "RegionPictures",
    "RetrievalEvaluator",
    "retrieval_evaluator",
]
