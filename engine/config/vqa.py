"""What may stand in the config of visual question answering."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from common.settings import Settings
from dataset.config import Positive
from dataset.tasks.vqa_config import VqaData
from engine.config.errors import raise_problems
from engine.config.schema import ConceptTaskConfig, StreamSettings


class VqaEvaluation(Settings):
    """How questions are answered."""

    mode: Literal["rank", "generate", "classify"] = "rank"
    """rank: the answer of data.answers that the decoder finds likeliest, as published. generate: the answer that the decoder writes.
    classify: the answer of data.answers that a classification head chooses; trains that head instead of a decoder."""
    batch_size: Positive = 32
    """Questions answered at once."""
    top_k: Positive = 128
    """rank only: answers that are scored as a whole, the likeliest by their first token."""
    sees_padding: bool = False
    """rank only: attend to the padding of questions, as the published evaluation of X-FM does."""
    beams: Positive = 3
    """generate only: 1 takes the likeliest token each time."""
    max_answer_tokens: Positive = 10
    """generate only: longest answer."""
    length_penalty: Annotated[float, Field(ge=0.0)] = 0.0
    """generate only: 0 compares sums of log-probabilities, 1 means over tokens."""


class VqaConfig(ConceptTaskConfig):
    """Fine-tuning and evaluation of visual question answering."""

    task: Literal["vqa"] = "vqa"  # pyright: ignore[reportIncompatibleVariableOverride]
    data: VqaData
    evaluation: VqaEvaluation = VqaEvaluation()
    new_decoder: bool = False
    """Count the whole decoder among the parameters that optimizer.lr_mult is for, although it starts from other weights (official
    `large_lr_for_dec`)."""

    @model_validator(mode="after")
    def _there_are_answers(self) -> "VqaConfig":
        if self.evaluation.mode != "generate" and self.data.answers is None:
            text = f"evaluation.mode {self.evaluation.mode} needs data.answers, the list of answers. Name one, or set the mode to generate."
            raise_problems([("data.answers", text)])
        if self.model.mvp is not None and self.evaluation.mode != "classify":
            text = f"evaluation.mode is {self.evaluation.mode}, but MVP (model.mvp) has no decoder. Set it to classify."
            raise_problems([("evaluation.mode", text)])
        return self

    def batches(self) -> Mapping[str, StreamSettings]:
        """The training questions."""
        return {"train": self.data}

    def objective_names(self) -> set[str]:
        """None of pre-training."""
        return set()
