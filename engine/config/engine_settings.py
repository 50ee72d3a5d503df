"""Settings of the training loop."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from common.settings import Settings
from dataset.config import Positive
from engine.config.errors import raise_problems

Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Whole = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0.0)]


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
    updates: list[list[str]] | None = None
    """Groups of streams, each with an optimizer update of its own, in this order in every step: X-FM's [[texts], [regions, photographs],
    [images]]. A parameter that the losses of a group do not reach keeps still in its update. null: one update, of all losses together."""
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
    def _updates_leave_parameters_out(self) -> "EngineSettings":
        if self.updates is not None and self.strategy == "deepspeed":
            message = "engine.updates needs engine.strategy ddp or fsdp: deepspeed decays parameters that an update does not reach."
            raise_problems([("updates", message)])
        return self

    @model_validator(mode="after")
    def _graphs_replay_where_weights_stay(self) -> "EngineSettings":
        if self.compile == "graphs" and self.strategy != "ddp":
            message = f"engine.compile = graphs needs weights that stay in place; under engine.strategy = {self.strategy} take true."
            raise_problems([("compile", message)])
        return self
