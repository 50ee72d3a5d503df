"""Settings of statements about two images (NLVR2, MaRVL)."""

from collections.abc import Mapping
from typing import Literal

from pydantic import model_validator

from common.settings import Settings
from dataset.config import ImageTextStream, Positive, StatementData
from engine.config.errors import raise_problems
from engine.config.schema import ConceptTaskConfig, StreamSettings
from models.tasks.nlvr import PairFusion


class NlvrEvaluation(Settings):
    """Truth of held-out statements."""

    batch_size: Positive = 32
    """Statements at once."""


class NlvrConfig(ConceptTaskConfig):
    """Fine-tuning and evaluation on statements about two images, or the domain pre-training before it."""

    task: Literal["nlvr"] = "nlvr"  # pyright: ignore[reportIncompatibleVariableOverride]
    data: StatementData | None = None
    """Statements to learn and to evaluate."""
    assignment: ImageTextStream | None = None
    """In place of data: images with captions for text assignment, X-VLM's domain pre-training. Its objectives and masking have no effect.
    Needs pair_fusion: alternating."""
    pair_fusion: PairFusion = "concatenated"
    """concatenated: the text is fused with each image, and both results are classified (X2-VLM, X-FM, CCLM on X2-VLM). alternating: it is
    fused once, in twice as many layers that look at both images by turns (X-VLM, the first CCLM)."""
    evaluation: NlvrEvaluation = NlvrEvaluation()

    @model_validator(mode="after")
    def _one_kind_of_data(self) -> "NlvrConfig":
        problems = []
        if (self.data is None) == (self.assignment is None):
            both = "set both; keep one." if self.data is not None else "both unset; set one."
            problems.append(("data", f"data and assignment are {both}"))
        if self.assignment is not None and self.pair_fusion != "alternating":
            problems.append(("pair_fusion", "assignment trains layers in pairs: set pair_fusion: alternating."))
        if self.model.mvp is not None and (self.assignment is not None or self.pair_fusion != "concatenated"):
            text = "pair_fusion: MVP (model.mvp) classifies what it makes of either image: set concatenated, and assignment null."
            problems.append(("pair_fusion", text))
        raise_problems(problems)
        return self

    def batches(self) -> Mapping[str, StreamSettings]:
        """The statements, or the images with captions."""
        chosen = self.assignment if self.data is None else self.data
        assert chosen is not None, "one of them is set"
        return {"train": chosen}

    def objective_names(self) -> set[str]:
        """None of pre-training's."""
        return set()
