"""Held-out evaluation: a data set, a model's predictions on it shared over the ranks, metrics, baselines and pictures."""

from engine.evaluators.base import Evaluator, Inputs, Probes
from engine.evaluators.classification import ClassEvaluator
from engine.evaluators.grounding import GroundingEvaluator
from engine.evaluators.labelled import HeldOut
from engine.evaluators.languages import Languages, retrieval_evaluator
from engine.evaluators.nlvr import StatementEvaluator
from engine.evaluators.order import OrderEvaluator
from engine.evaluators.phrases import PhraseEvaluator
from engine.evaluators.regions import RegionPictures
from engine.evaluators.retrieval import RetrievalEvaluator

__all__ = [
    "ClassEvaluator",
    "Evaluator",
    "GroundingEvaluator",
    "HeldOut",
    "Inputs",
    "Languages",
    "OrderEvaluator",
    "PhraseEvaluator",
    "Probes",
    "RegionPictures",
    "RetrievalEvaluator",
    "StatementEvaluator",
    "retrieval_evaluator",
]
