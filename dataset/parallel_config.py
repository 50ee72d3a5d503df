"""Settings of the stream of parallel text."""

from typing import Literal

from pydantic import field_validator, model_validator

from dataset.config import MaskingConfig, Positive, Probability, TrainingStream, known_objectives


class ParallelTextStream(TrainingStream):
    """Pairs of texts that mean the same (CCLM, arXiv 2206.00621, section 3). Annotation: {"source": text, "target": text}."""

    kind: Literal["parallel_text"] = "parallel_text"
    source_key: str = "source"
    """The annotation key of the one text."""
    target_key: str = "target"
    """The annotation key of the other."""
    objectives: dict[str, float] = {"ttc": 1.0, "ttm": 1.0, "mlm": 1.0}
    """Objective -> weight. ttc: contrast of the two texts. ttm: matching, where the second attends to the first. mlm: hidden tokens of the
    first, which attends to the second. tlm: hidden tokens of both in one row, without cross-attention (XLM, arXiv 1901.07291)."""
    swap: Probability = 0.5
    """How often source and target change places."""
    max_tokens: Positive | None = None
    """Longest sequence of each text; null: tokenizer.max_tokens."""
    masking: MaskingConfig = MaskingConfig(probability=0.4, max_masks=16)

    @field_validator("objectives")
    @classmethod
    def _known(cls, objectives: dict[str, float]) -> dict[str, float]:
        return known_objectives(objectives, ("ttc", "ttm", "mlm", "tlm"))

    @model_validator(mode="after")
    def _two_keys(self) -> "ParallelTextStream":
        if self.source_key == self.target_key:
            raise ValueError(f'source_key and target_key are both "{self.source_key}"; the two texts of a pair have keys of their own')
        return self
