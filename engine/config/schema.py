"""What may stand in a run's config: one class a task, all strict."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from common.settings import Settings
from dataset.concepts import ConceptInputs, ConceptStream
from dataset.config import (
    ImageTextStream,
    MatchingSettings,
    Positive,
    RegionTextStream,
    RetrievalData,
    StorageSettings,
    TaskData,
    TokenizerConfig,
    TrainingStream,
    VideoTextStream,
)
from dataset.parallel_config import ParallelTextStream
from dataset.streams.unpaired_config import ImageStream, TextStream
from engine.config.concepts import PhraseProbe, concept_problems, no_such_task, task_problems
from engine.config.engine_settings import EngineSettings
from engine.config.errors import raise_problems
from engine.config.videos import OrderProbe, clip_problems, matching_problems
from models.config import ModelConfig

TaskName = Literal["pretrain", "retrieval", "grounding", "nlvr", "classification", "vqa", "captioning", "zero_shot"]
Rate = Annotated[float, Field(gt=0.0)]
Weight = Annotated[float, Field(ge=0.0)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Whole = Annotated[int, Field(ge=0)]
StreamSettings = TrainingStream | TaskData
"""What says where a stream's samples come from: batch_size, groups and, for regions, max_images among it."""
Stream = Annotated[
    ImageTextStream | RegionTextStream | VideoTextStream | TextStream | ImageStream | ParallelTextStream | ConceptStream,
    Field(discriminator="kind"),
]


class InitializeSettings(Settings):
    """Weights to start from. A run that goes on after an interruption takes its own checkpoint instead."""

    checkpoint: str | None = None
    """A weights file of ours or of a known official format (docs/checkpoints.md), a checkpoint folder, or the folder of a finished run."""
    allow_missing: list[str] = []
    """Patterns (with *) of model tensors that the checkpoint, or the weights an encoder starts from, may lack; they start fresh."""
    replace_text: bool = False
    """Take all of the checkpoint but its text encoder, and what its masked-LM head has for each word; the model's own starts from
    model.text.weights, or from nothing where that is null. The two encoders may differ in everything but their width."""

    @model_validator(mode="after")
    def _something_to_replace(self) -> "InitializeSettings":
        if self.replace_text and self.checkpoint is None:
            raise_problems([("replace_text", "initialize.replace_text needs initialize.checkpoint, whose text encoder it replaces.")])
        return self


class OptimizerSettings(Settings):
    """AdamW."""

    lr: Rate
    """Highest learning rate."""
    weight_decay: Weight = 0.01
    betas: tuple[Share, Share] = (0.9, 0.98)
    eps: Rate = 1e-8
    vision_lr: Rate | None = None
    """Rate of the vision encoder; needs text_lr."""
    text_lr: Rate | None = None
    """Rate of the text encoder."""
    cross_lr: Rate | None = None
    """Rate of the fusion encoder; null: text_lr."""
    lr_mult: Rate = 1.0
    """Factor on the rate of parameters that start from nothing."""
    clip_norm: Rate | None = 1.0
    """Longest gradient, over all parameters; null: no clipping."""
    implementation: Literal["fused", "foreach", "single", "official", "apex"] = "fused"
    """How the update is computed. fused, foreach and single are PyTorch's AdamW, from fast to simple. official: the AdamW of the published
    code, which decays after the update and adds eps before the correction of the bias; for meeting a published trajectory step by step,
    slower, and no better to train with. apex needs NVIDIA apex."""

    @model_validator(mode="after")
    def _rates_come_together(self) -> "OptimizerSettings":
        problems = []
        if self.vision_lr is not None and self.text_lr is None:
            problems.append(("vision_lr", "optimizer.vision_lr needs optimizer.text_lr beside it."))
        if self.cross_lr is not None and self.text_lr is None:
            problems.append(("cross_lr", "optimizer.cross_lr needs optimizer.text_lr beside it."))
        raise_problems(problems)
        return self


class ScheduleSettings(Settings):
    """Learning rate over the run."""

    kind: Literal["linear", "cosine"] = "linear"
    """Linear warm-up from 0, then a decay along a line or half a cosine."""
    steps: Whole | None = None
    """Optimizer steps of the run; either this or epochs. 0: nothing is trained, the starting weights are saved and evaluated."""
    epochs: Positive | None = None
    """Passes over the first stream's (the training set's) records; either this or steps."""
    warmup_steps: int | float = 0.1
    """A whole number of steps, or a share of the run in [0, 1)."""
    min_lr: Weight = 0.0
    """The rate that `optimizer.lr` decays to."""

    @field_validator("warmup_steps")
    @classmethod
    def _whole_or_share(cls, value: int | float) -> int | float:
        if value < 0 or (value >= 1 and value != int(value)):
            raise ValueError(f"{value} is neither a whole number of steps nor a share in [0, 1)")
        return int(value) if value >= 1 else value

    @model_validator(mode="after")
    def _one_length(self) -> "ScheduleSettings":
        problems = []
        if (self.steps is None) == (self.epochs is None):
            both = "set both; keep one." if self.steps is not None else "both unset; set one."
            problems.append(("steps", f"schedule.steps and schedule.epochs are {both}"))
        elif self.steps and self.warmup_steps >= self.steps:
            text = f"schedule.warmup_steps is {self.warmup_steps} and must be below schedule.steps, {self.steps}."
            problems.append(("warmup_steps", text))
        raise_problems(problems)
        return self

    @property
    def trains(self) -> bool:
        """Whether there is anything to train."""
        return self.steps != 0

    def total_steps(self, records: int, images_per_step: int) -> int:
        """Optimizer steps of the run; an epoch is one pass over `records`."""
        return self.steps if self.steps is not None else max(round((self.epochs or 0) * records / images_per_step), 1)

    def warmup(self, total: int) -> int:
        """Warm-up steps of a run of `total` steps; a share is rounded down, as in the published code."""
        return self.warmup_steps if isinstance(self.warmup_steps, int) else int(self.warmup_steps * total)


class WandbSettings(Settings):
    """Weights & Biases; needs the package wandb."""

    project: str
    name: str | None = None


class LoggerSettings(Settings):
    """Copies of the metrics beside metrics.jsonl."""

    tensorboard: bool = True
    wandb: WandbSettings | None = None


class PublishedRow(Settings):
    """The published numbers that a run repeats; names as in configs/published/."""

    paper: str
    model: str
    data: str
    task: str
    metrics: dict[str, str] = {}
    """Published name of a metric -> its name in this run's metrics.json, where they differ."""


class ReportSettings(Settings):
    """report.html, and `run.py report`."""

    published: PublishedRow | None = None
    """What `run.py report` compares the run with."""

    samples: Whole = 8
    """Images shown in each of its panels."""


class RetrievalEvaluation(Settings):
    """Two-stage ranking: by features, then the best again by the matching head."""

    batch_size: Positive = 64
    """Images encoded at once."""
    text_batch_size: Positive = 256
    """Texts encoded at once."""
    top_k: Positive = 16
    """Candidates of a query that are ranked again, in both directions."""
    top_k_texts: Positive | None = None
    """Candidate texts of an image; null: top_k."""
    top_k_images: Positive | None = None
    """Candidate images of a text; null: top_k."""
    pair_batch_size: Positive | None = None
    """Candidate pairs fused at once; null: 64 on a CPU, 1024 on a GPU."""
    keep_images: Literal["fp32", "bf16", "recompute"] = "fp32"
    """Tokens of images between encoding and ranking. fp32: in main memory, for 5,000 images of 224 px and width 768 3 GB over all ranks.
    bf16: half of it, rounded. recompute: nothing is kept, every image is encoded twice."""
    keep_texts: Literal["device", "cpu"] = "device"
    """Where each rank keeps the states of all texts, for 25,000 captions of 12 tokens and width 768 0.9 GB."""


class GroundingEvaluation(Settings):
    """Boxes of referring expressions."""

    batch_size: Positive = 64


class RetrievalProbe(RetrievalEvaluation):
    """Held-out retrieval without fine-tuning."""

    file: str | dict[str, str]
    """JSON file: [{image, caption: [text, ...]}]; or language -> file."""
    image_root: str
    """The folder that image paths are relative to."""


class GroundingProbe(GroundingEvaluation):
    """Held-out grounding without fine-tuning; needs a stream with the box objective."""

    file: str
    """JSON file: [{image, text, ref_id, bbox: [x, y, w, h], width, height}]."""
    image_root: str
    """The folder that image paths are relative to."""


class PretrainEvaluation(Settings):
    """What pre-training is measured by on held-out data."""

    retrieval: RetrievalProbe | None = None
    videos: RetrievalProbe | None = None
    """The same of clips."""
    order: OrderProbe | None = None
    grounding: GroundingProbe | None = None
    phrases: PhraseProbe | None = None


class RetrievalWeights(Settings):
    """Weights of the fine-tuning losses."""

    itc: Weight = 1.0
    itm: Weight = 1.0


class RunConfig(Settings):
    """What every task has."""

    task: TaskName
    seed: Whole = 1
    """All random draws follow from it."""
    model: ModelConfig = ModelConfig()
    gradient_mode: Literal["exact", "paper"] = "exact"
    """exact: losses and gradients depend neither on the number of ranks nor on accumulation. paper: the scaling of the published code."""
    tokenizer: TokenizerConfig
    storage: StorageSettings = StorageSettings()
    initialize: InitializeSettings = InitializeSettings()
    optimizer: OptimizerSettings
    schedule: ScheduleSettings
    engine: EngineSettings = EngineSettings()
    loggers: LoggerSettings = LoggerSettings()
    report: ReportSettings = ReportSettings()

    @model_validator(mode="after")
    def _mvp_has_the_task(self) -> "RunConfig":
        raise_problems(no_such_task(self))
        return self

    def matching_steps(self) -> MatchingSettings | None:
        """In which steps matching is learned; None: in all."""
        return None

    def batches(self) -> Mapping[str, StreamSettings]:
        """What is trained on, by stream name: settings with batch_size, groups and, for regions, max_images."""
        raise NotImplementedError

    def objective_names(self) -> set[str]:
        """Objectives with a positive weight, by the names of their heads: itc, itm, mlm, box, text_mlm, mim."""
        raise NotImplementedError


class PretrainConfig(RunConfig):
    """Pre-training on several streams at once."""

    task: Literal["pretrain"] = "pretrain"  # pyright: ignore[reportIncompatibleVariableOverride]
    streams: dict[str, Stream]
    """Name -> stream. A stream set to null is left out, so that --set streams.regions=null drops an included one."""
    matching: MatchingSettings = MatchingSettings()
    stop_gradient: bool = False
    """Keep the gradients of itm, mlm and box, which pass the fusion encoder, out of the text encoder; it then learns from itc and
    text_mlm alone (X-FM, arXiv 2301.05065, section 3.3)."""
    vl_guided_mim: bool = True
    """What the objective mim predicts. true: the tokens that the vision encoder itself, trained by image-text objectives in the same
    step, gives for the whole image (X-FM, section 3.3). false: the codes of model.visual_tokenizer (BEiT-2); without one, mim is left out
    of all streams."""
    evaluation: PretrainEvaluation = PretrainEvaluation()

    @field_validator("streams", mode="before")
    @classmethod
    def _without_null_streams(cls, streams: Any) -> Any:
        return {name: stream for name, stream in streams.items() if stream is not None} if isinstance(streams, dict) else streams

    @model_validator(mode="after")
    def _something_is_learned(self) -> "PretrainConfig":
        problems = []
        if not self.streams:
            problems.append(("streams", "streams is empty; pre-training needs at least one stream."))
        elif not self.objective_names():
            problems.append(("streams", "streams: all objectives have weight 0, so nothing is learned."))
        odd = [name for name in self.streams if not name.isidentifier()]
        problems.extend((f"streams.{name}", f'streams: "{name}" is not a name; use letters, digits and _.') for name in odd)
        if self.evaluation.grounding is not None and self.streams and "box" not in self.objective_names():
            text = "evaluation.grounding needs a stream with the box objective. Add one, or set evaluation.grounding to null."
            problems.append(("evaluation.grounding", text))
        problems.extend(self._update_problems())
        problems.extend(self._masked_image_problems())
        problems.extend(self._length_problems())
        if self.stop_gradient and self.objective_names() <= {"itm", "mlm", "box", "mim"}:
            text = "stop_gradient leaves the text encoder without any gradient: add the objective itc, or a text stream with text_mlm."
            problems.append(("stop_gradient", text))
        probes = {"videos": self.evaluation.videos, "order": self.evaluation.order}
        problems += clip_problems(self.streams, probes, self.model.vision.frames)
        clean = {name for name, stream in self.streams.items() if stream.clean is not None}
        problems += matching_problems(self.matching, {name: stream.objectives for name, stream in self.streams.items()}, clean)
        problems.extend(concept_problems(self))
        raise_problems(problems)
        return self

    def matching_steps(self) -> MatchingSettings | None:
        """See `RunConfig`."""
        return self.matching

    def _update_problems(self) -> Iterator[tuple[str, str]]:
        if self.engine.updates is None:
            return
        named = [name for group in self.engine.updates for name in group]
        for name in {*named, *self.streams}:
            if name not in self.streams:
                yield "engine.updates", f"engine.updates names {name}, which is no stream; there are {', '.join(self.streams)}."
            elif named.count(name) != 1:
                yield "engine.updates", f"engine.updates names stream {name} {named.count(name)} times; each stream has one place in it."

    def _masked_image_problems(self) -> Iterator[tuple[str, str]]:
        if "mim" in self.objective_names() and self.vl_guided_mim and self.model.visual_tokenizer is not None:
            text = "vl_guided_mim is true, but model.visual_tokenizer is set, whose codes would be predicted. Set one to false or null."
            yield "vl_guided_mim", text
        for name, stream in self.streams.items():
            wanted = stream.patch_masking.patches if isinstance(stream, (ImageTextStream, ImageStream)) else 0
            if "mim" in self.learned(stream) and wanted > self.model.vision.patches:
                text = f"is {wanted}, but an image has {self.model.vision.patches} patches."
                yield f"streams.{name}.patch_masking.patches", f"streams.{name}.patch_masking.patches {text}"

    def _length_problems(self) -> Iterator[tuple[str, str]]:
        text = self.model.text
        for name, stream in self.streams.items():
            if isinstance(stream, TextStream) and stream.max_tokens > text.max_tokens:
                room = f"model.text.max_positions: {text.max_positions} has room for texts of {text.max_tokens}"
                yield f"streams.{name}.max_tokens", f"streams.{name}.max_tokens is {stream.max_tokens}, but {room}."

    def learned(self, stream: Stream) -> dict[str, float]:
        """Objectives of a stream that have a positive weight and are not switched off."""
        off = {"mim"} if not self.vl_guided_mim and self.model.visual_tokenizer is None else set()
        return {name: weight for name, weight in stream.objectives.items() if weight > 0 and name not in off}

    def batches(self) -> Mapping[str, StreamSettings]:
        """The streams; those of which the only objective is switched off are left out."""
        return {name: stream for name, stream in self.streams.items() if self.learned(stream) or "mim" not in stream.objectives}

    def objective_names(self) -> set[str]:
        """Objectives that are learned from any stream."""
        return {name for stream in self.streams.values() if stream.weight > 0 for name in self.learned(stream)}


class ConceptTaskConfig(RunConfig):
    """What every task has that MVP can be fine-tuned for."""

    concepts: ConceptInputs | None = None
    """Phrases and regions, where the model is MVP (model.mvp)."""

    @model_validator(mode="after")
    def _concepts_fit(self) -> "ConceptTaskConfig":
        raise_problems(task_problems(self))
        return self


class RetrievalConfig(ConceptTaskConfig):
    """Fine-tuning and evaluation of image-text retrieval."""

    task: Literal["retrieval"] = "retrieval"  # pyright: ignore[reportIncompatibleVariableOverride]
    data: RetrievalData
    loss_weights: RetrievalWeights = RetrievalWeights()
    evaluation: RetrievalEvaluation = RetrievalEvaluation()

    def batches(self) -> Mapping[str, StreamSettings]:
        """The training pairs."""
        return {"train": self.data}

    def objective_names(self) -> set[str]:
        """Ranking uses both heads, whatever their weights."""
        return {"itc", "itm"}
