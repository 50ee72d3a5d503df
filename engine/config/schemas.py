"""The config class of each task."""

from engine.config.captioning import CaptioningConfig
from engine.config.classification import ClassificationConfig
from engine.config.grounding import GroundingConfig
from engine.config.nlvr import NlvrConfig
from engine.config.schema import PretrainConfig, RetrievalConfig, RunConfig
from engine.config.vqa import VqaConfig
from engine.config.zero_shot import ZeroShotConfig

SCHEMAS: dict[str, type[RunConfig]] = {
    "pretrain": PretrainConfig,
    "retrieval": RetrievalConfig,
    "grounding": GroundingConfig,
    "nlvr": NlvrConfig,
    "classification": ClassificationConfig,
    "vqa": VqaConfig,
    "captioning": CaptioningConfig,
    "zero_shot": ZeroShotConfig,
}
"""By the task's name."""
