"""What may stand in the config of captioning."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from common.settings import Settings
from dataset.config import ImageTextStream, Positive
from dataset.tasks.captioning_config import CaptionData
from engine.config.errors import raise_problems
from engine.config.schema import RunConfig, Share, StreamSettings, Whole
from models.captioning import Prediction, Writer
from models.tasks.captioning import Baseline

Scorer = Literal["bleu", "meteor", "rouge", "cider", "spice"]


class CaptionEvaluation(Settings):
    """How captions are written and judged."""

    batch_size: Positive = 32
    """Images described at once."""
    beams: Positive = 3
    """1 takes the likeliest token each time."""
    max_tokens: Positive = 16
    """Longest caption behind the prompt, its end included."""
    min_tokens: Whole = 0
    """Least tokens before the end."""
    length_penalty: Annotated[float, Field(ge=0.0)] = 0.0
    """Power of the length that scores are divided by; 0 compares sums of log-probabilities."""
    no_repeat: Whole = 0
    """No run of so many tokens is written twice; 0 allows all. X2-VLM: 3."""
    repetition_penalty: Annotated[float, Field(ge=1.0)] = 1.0
    """Factor on the log-probability of tokens that are there already."""
    search: Literal["refilled", "plain"] = "plain"
    """refilled: a caption that ends leaves its beam to another one, lengths count the prompt, and the search ends early (X-VLM).
    plain: it gives up its beam, and lengths are counted from 5 on (X2-VLM)."""
    scorers: list[Scorer] = ["bleu", "meteor", "rouge", "cider"]
    """Which of pycocoevalcap's scorers judge the test set, with the tokenizer of the Penn treebank. They need that package and Java, spice
    a download besides; one that fails is left out with a warning. Our own BLEU and CIDEr, whose names end in _words, are always there."""


class SelfCriticalStage(Settings):
    """Training on the CIDEr-D of captions that the model draws."""

    samples: Annotated[int, Field(ge=2)] = 5
    """Captions drawn of each image."""
    baseline: Baseline = "greedy"
    """greedy: the reward of the caption of the likeliest tokens. samples: the mean of the image's other samples."""
    temperature: Annotated[float, Field(gt=0.0)] = 1.0


class CaptioningConfig(RunConfig):
    """Learning and evaluation of captioning, or one of the stages before and after it."""

    task: Literal["captioning"] = "captioning"  # pyright: ignore[reportIncompatibleVariableOverride]
    data: CaptionData | None = None
    """Captions to learn and images to describe."""
    domain: ImageTextStream | None = None
    """In place of data: images with captions for plain language modelling, X-VLM's domain pre-training. Its objectives and masking have no
    effect."""
    self_critical: SelfCriticalStage | None = None
    """Train on rewards instead of the next token; starts from a captioning run."""
    writer: Writer = "encoders"
    """encoders: text and fusion encoder write, reading from left to right (X-VLM, X2-VLM). decoder: a copy of the fusion encoder (X-FM)."""
    prediction: Prediction = "causal"
    """Where the next token is predicted. causal: at the last token (X-VLM). masked: at a [MASK] behind it (X2-VLM)."""
    smoothing: Share = 0.1
    """Share of every label that is spread over the vocabulary."""
    evaluation: CaptionEvaluation = CaptionEvaluation()

    @model_validator(mode="after")
    def _stages_fit(self) -> "CaptioningConfig":
        problems = []
        if (self.data is None) == (self.domain is None):
            both = "set both; keep one." if self.data is not None else "both unset; set one."
            problems.append(("data", f"data and domain are {both}"))
        if self.self_critical is not None and self.domain is not None:
            problems.append(("self_critical", "self_critical needs data, captions to compare with; domain has none."))
        if self.domain is not None and self.prediction == "masked":
            problems.append(("prediction", "domain is plain language modelling: set prediction: causal."))
        sharded = self.engine.strategy == "fsdp" or (self.engine.strategy == "deepspeed" and self.engine.zero_stage == 3)
        if self.self_critical is not None and sharded:
            text = "self_critical draws captions within a step, for which every rank needs all weights: set engine.strategy: ddp."
            problems.append(("self_critical", text))
        raise_problems(problems)
        return self

    def batches(self) -> Mapping[str, StreamSettings]:
        """The captions, or the images with captions."""
        chosen = self.domain if self.data is None else self.data
        assert chosen is not None, "one of them is set"
        return {"train": chosen}

    def objective_names(self) -> set[str]:
        """None of pre-training's."""
        return set()
