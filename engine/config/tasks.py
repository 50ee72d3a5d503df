"""The tasks and their configs."""

from engine.config.schema import GroundingConfig, PretrainConfig, RetrievalConfig, RunConfig
from engine.config.vqa import VqaConfig

SCHEMAS: dict[str, type[RunConfig]] = {
    "pretrain": PretrainConfig,
    "retrieval": RetrievalConfig,
    "grounding": GroundingConfig,
    "vqa": VqaConfig,
}
"""The config class of each task."""
