"""The config class of each task."""

from engine.config.classification import ClassificationConfig
from engine.config.nlvr import NlvrConfig
from engine.config.schema import GroundingConfig, PretrainConfig, RetrievalConfig, RunConfig

SCHEMAS: dict[str, type[RunConfig]] = {
    "pretrain": PretrainConfig,
    "retrieval": RetrievalConfig,
    "grounding": GroundingConfig,
    "nlvr": NlvrConfig,
    "classification": ClassificationConfig,
}
"""By the task's name."""
