"""What may stand in a run's config: one class a task, all strict."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from common.settings import Settings
from dataset.concepts import ConceptStream
from dataset.config import (
    GroundingData,
    ImageTextStream,
    Positive,
    RegionTextStream,
    RetrievalData,
    StorageSettings,
    StreamConfig,
    TaskData,
    TokenizerConfig,
)
from engine.config.concepts import PhraseProbe, concept_problems
from engine.config.errors import raise_problems
from models.config import ModelConfig

TaskName = Literal["pretrain", "retrieval", "grounding", "nlvr", "classification", "vqa"]
Rate = Annotated[float, Field(gt=0.0)]
Weight = Annotated[float, Field(ge=0.0)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Whole = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0.0)]
StreamSettings = StreamConfig | TaskData
"""What says where a stream's samples come from: batch_size, groups and, for regions, max_images among it."""
Stream = Annotated[ImageTextStream | RegionTextStream | ConceptStream, Field(discriminator="kind")]


class InitializeSettings(Settings):
    """Weights to start from. A run that goes on after an interruption takes its own checkpoint instead."""

    checkpoint: str | None = None
    """A weights file of ours or of a known official format (docs/checkpoints.md), a checkpoint folder, or the folder of a finished run."""
    allow_missing: list[str] = []
    """Patterns (with *) of model tensors that the checkpoint, or the weights an encoder starts from, may lack; they start fresh."""


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

    kind: Literal["linear"] = "linear"
    """Linear warm-up from 0, then linear decay."""
    steps: Positive | None = None
    """Optimizer steps of the run; either this or epochs."""
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
        elif self.steps is not None and self.warmup_steps >= self.steps:
            text = f"schedule.warmup_steps is {self.warmup_steps} and must be below schedule.steps, {self.steps}."
            problems.append(("warmup_steps", text))
        raise_problems(problems)
        return self

    def total_steps(self, records: int, images_per_step: int) -> int:
        """Optimizer steps of the run; an epoch is one pass over `records`."""
        return self.steps if self.steps is not None else max(round((self.epochs or 0) * records / images_per_step), 1)

    def warmup(self, total: int) -> int:
        """Warm-up steps of a run of `total` steps; a share is rounded down, as in the published code."""
        return self.warmup_steps if isinstance(self.warmup_steps, int) else int(self.warmup_steps * total)


class EngineSettings(Settings):
    """The training loop."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: autocast; weights and optimizer stay in float32."""
    strategy: Literal["ddp", "fsdp", "deepspeed"] = "ddp"
    """How ranks share the model. ddp: each holds all of it. fsdp: each holds a part of every tensor (FSDP2). deepspeed: ZeRO, see
    zero_stage. Losses and checkpoints do not depend on it."""
    zero_stage: Literal[1, 2, 3] = 2
    """deepspeed only: ranks share out the optimizer's state (1), gradients as well (2), weights as well (3)."""
    activation_checkpointing: bool | Annotated[float, Field(ge=0.0, le=1.0)] = False
    """Recompute transformer blocks in the backward pass instead of keeping their activations: true for all, or a share in [0, 1] of each
    encoder's blocks (0.5: every second one). Less memory, up to a third more time; run.py plan estimates both."""
    compile: bool | Literal["graphs"] = False
    """torch.compile of each transformer block, which takes a minute or more before the first step. graphs: the vision encoder's blocks,
    whose shapes never change, are replayed as CUDA graphs as well."""
    attention: Literal["auto", "fused", "math"] = "auto"
    """How attention is computed. fused: flash or memory-efficient kernels. math: plain products. auto: fused on a GPU; on a CPU, where no
    fused kernel knows dropout or a bias that learns, math."""
    streams: Literal["in_turn", "together"] = "in_turn"
    """How pre-training on several streams takes a step. in_turn: forward and backward pass of one stream after the other, where the last
    one uses all that others use (regions after images) and the strategy is ddp: activations of one stream at a time. together: one
    forward pass of all. The losses and gradients are the same."""
    accumulation: Positive = 1
    """Micro-batches of one optimizer step."""
    accumulate_contrast: Literal["batch", "micro"] = "batch"
    """Which pairs the contrastive losses compare where micro-batches are accumulated. batch: all of the optimizer step; the encoders run
    twice. micro: those of one micro-batch (over all ranks), as published code does; cheaper, and another loss."""
    workers: Whole = 2
    """Data loading processes of each rank; 0 loads in the training process."""
    log_every: Positive = 20
    """Steps between two lines of metrics."""
    checkpoint_every: Positive = 200
    """Steps between two checkpoints."""
    keep_checkpoints: Positive = 2
    evaluate_every: Positive | None = None
    """Steps between two evaluations on validation; null: after every epoch where the schedule counts epochs, else once, at the end."""
    max_nonfinite: Whole = 3
    """Steps in a row whose loss or gradient is not finite that are left out (no weight changes, the batch is written down) before the run
    stops; 0 stops it at the first."""
    max_bad_share: Share = 0.01
    """The run stops when more than this share of the records it read could not be used."""
    threads: Positive | None = None
    """CPU threads of each rank; null: PyTorch's choice."""
    stall_warning: Seconds | None = 120.0
    """Seconds without progress after which a rank says where it hangs; three times as many before the first step. 0 or null: never."""
    timeout: Seconds | None = 1800.0
    """Seconds without progress after which a run ends itself, with exit code 124; three times as many before the first step. 0 or null:
    never."""

    @property
    def takes_turns(self) -> bool:
        """Whether streams may be differentiated one after the other (`Task.turns`). The other strategies shard gradients while they arrive,
        and were not built for parameters that a last pass leaves out."""
        return self.strategy == "ddp" and self.streams == "in_turn"

    @model_validator(mode="after")
    def _warning_comes_first(self) -> "EngineSettings":
        if self.stall_warning and self.timeout and self.timeout <= self.stall_warning:
            message = f"engine.timeout = {self.timeout:g} must be more than engine.stall_warning = {self.stall_warning:g}."
            raise_problems([("timeout", message)])
        return self

    @model_validator(mode="after")
    def _graphs_replay_where_weights_stay(self) -> "EngineSettings":
        if self.compile == "graphs" and self.strategy != "ddp":
            message = f"engine.compile = graphs needs weights that stay in place; under engine.strategy = {self.strategy} take true."
            raise_problems([("compile", message)])
        return self


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

    file: str
    """JSON file: [{image, caption: [text, ...]}]."""
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
    grounding: GroundingProbe | None = None
    phrases: PhraseProbe | None = None


class RetrievalWeights(Settings):
    """Weights of the fine-tuning losses."""

    itc: Weight = 1.0
    itm: Weight = 1.0


class GroundingWeights(Settings):
    """Weights of the fine-tuning losses."""

    box_l1: Weight = 1.0
    box_giou: Weight = 1.0


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

    def batches(self) -> Mapping[str, StreamSettings]:
        """What is trained on, by stream name: settings with batch_size, groups and, for regions, max_images."""
        raise NotImplementedError

    def objective_names(self) -> set[str]:
        """Objectives with a positive weight: itc, itm, mlm, box."""
        raise NotImplementedError


class PretrainConfig(RunConfig):
    """Pre-training on several streams at once."""

    task: Literal["pretrain"] = "pretrain"  # pyright: ignore[reportIncompatibleVariableOverride]
    streams: dict[str, Stream]
    """Name -> stream. A stream set to null is left out, so that --set streams.regions=null drops an included one."""
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
        problems.extend(concept_problems(self))
        raise_problems(problems)
        return self

    def batches(self) -> Mapping[str, StreamSettings]:
        """The streams."""
        return dict(self.streams)

    def objective_names(self) -> set[str]:
        """Objectives with a positive weight in any stream."""
        return {name for stream in self.streams.values() if stream.weight > 0 for name, weight in stream.objectives.items() if weight > 0}


class RetrievalConfig(RunConfig):
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


class GroundingConfig(RunConfig):
    """Fine-tuning and evaluation of visual grounding by box regression."""

    task: Literal["grounding"] = "grounding"  # pyright: ignore[reportIncompatibleVariableOverride]
    data: GroundingData
    loss_weights: GroundingWeights = GroundingWeights()
    evaluation: GroundingEvaluation = GroundingEvaluation()

    def batches(self) -> Mapping[str, StreamSettings]:
        """The referring expressions."""
        return {"train": self.data}

    def objective_names(self) -> set[str]:
        """Box regression only."""
        return {"box"}
