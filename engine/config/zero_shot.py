"""Settings of evaluations by contrastive features alone: zero-shot classification of images, and attributes of objects."""

from collections.abc import Mapping
from typing import Literal

from pydantic import model_validator

from common.settings import Settings
from dataset.config import Positive
from dataset.tasks.zero_shot_config import ZeroShotData, ZeroShotTexts
from engine.config.errors import raise_problems
from engine.config.schema import OptimizerSettings, RunConfig, ScheduleSettings, StreamSettings


class ZeroShotEvaluation(Settings):
    """How much is encoded at once."""

    batch_size: Positive = 64
    """Images, with all their objects."""
    text_batch_size: Positive = 256


class ZeroShotConfig(RunConfig):
    """Evaluation of pre-trained weights; nothing is trained."""

    task: Literal["zero_shot"] = "zero_shot"  # pyright: ignore[reportIncompatibleVariableOverride]
    data: ZeroShotData
    texts: ZeroShotTexts = ZeroShotTexts()
    evaluation: ZeroShotEvaluation = ZeroShotEvaluation()
    optimizer: OptimizerSettings = OptimizerSettings(lr=1e-5)
    """Has no effect."""
    schedule: ScheduleSettings = ScheduleSettings(steps=0)
    """There are no steps."""

    @model_validator(mode="after")
    def _nothing_is_trained(self) -> "ZeroShotConfig":
        text = "schedule.steps must be 0: this task trains nothing."
        raise_problems([("schedule.steps", text)] if self.schedule.trains else [])
        return self

    def batches(self) -> Mapping[str, StreamSettings]:
        """None."""
        return {}

    def objective_names(self) -> set[str]:
        """What the features come from."""
        return {"itc"}
