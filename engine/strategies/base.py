"""What every strategy offers the training loop.

A strategy holds the task as it is called in training (`wrapped`), its optimizer, and whatever of both lies on this rank. To the outside
there are only full tensors under the names of the model: a checkpoint of one strategy and number of ranks is read by any other.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DeepSpeedPlugin, InitProcessGroupKwargs
from torch import Tensor, nn
from torch.optim import Optimizer

from engine.blocks import begin_graphs, compile_blocks, recompute_blocks
from engine.config.engine_settings import EngineSettings
from models.attention import use_attention
from models.tasks.base import Batch, Task
from models.tasks.contrast import Contrast
from models.vlm import VisionLanguageModel

Tensors = dict[str, Tensor]
DEPRECATED = r"`torch\.distributed\.\w+` is deprecated"
"""Warnings that libraries earn for calls of theirs, many lines at each start."""


@dataclass(frozen=True)
class Snapshot:
    """Some ranks' share of a moment of training: full tensors on the CPU that nobody else writes to."""

    model: Tensors
    optimizer: Tensors
    """Under "parameter name|state name"."""


Owner = Callable[[Mapping[str, int]], Sequence[str]]
"""From the bytes of all tensors by name to the names that this rank keeps; the others are still visited, since a gather needs all ranks."""


class Strategy:
    """Base of the strategies; one process makes one."""

    accelerator: Accelerator
    task: Task
    wrapped: nn.Module
    optimizer: Optimizer
    """Whose groups carry the learning rates."""

    def __init__(self, settings: EngineSettings, clip_norm: float | None, timeout: timedelta | None) -> None:
        """Join the process group; once in a process.

        Args:
            settings: which strategy, precision and accumulation.
            clip_norm: longest gradient; None: no clipping.
            timeout: of collectives; None: the library's own.

        Raises:
            UserError: the library that it needs is not installed.
        """
        self.settings = settings
        self.clip_norm = math.inf if clip_norm is None else clip_norm
        self.timeout = timeout

    @property
    def device(self) -> torch.device:
        """Of this rank."""
        return self.accelerator.device

    def prepare(self, task: Task, optimizer: Optimizer) -> None:
        """Take a task with its starting weights, still on the CPU, and an optimizer over its parameters; all ranks together.

        Args:
            task: moved to the device.
            optimizer: each of its groups has the names of its parameters under "names".
        """
        raise NotImplementedError

    def losses(self, batches: Mapping[str, Batch], contrast: Contrast) -> Tensors:
        """One forward pass of the task on this rank; see `Task.forward`."""
        if self.settings.compile == "graphs":
            begin_graphs()
        return self.wrapped(batches, contrast=contrast)

    def unsynchronised(self) -> AbstractContextManager[None]:
        """Forward and backward inside leave gradients on their rank: for all micro-batches of a step but the last."""
        return self.accelerator.no_sync(self.wrapped)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a micro-batch's loss, already divided by the number of micro-batches."""
        self.accelerator.backward(loss)

    def update(self) -> Tensor:
        """Clip and take the optimizer's step, unless a gradient is not finite: then no weight changes, on any rank.

        Returns:
            Scalar on the device: the gradient's norm over all parameters, before clipping; the same on all ranks. Not finite when the
            step was skipped.
        """
        raise NotImplementedError

    def keep_in_range(self) -> None:
        """Pull the parameters that have a range (`Task.bounds`) back into it."""
        raise NotImplementedError

    def snapshot(self, model_owner: Owner, optimizer_owner: Owner | None) -> Snapshot:
        """Copy this rank's share; all ranks together. Without an optimizer owner, of the model alone."""
        raise NotImplementedError

    def load(self, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]) -> None:
        """Put back what snapshots of all ranks together hold; all ranks together, after `prepare`.

        Raises:
            UserError: they are of another model.
        """
        raise NotImplementedError

    def whole_model(self) -> AbstractContextManager[VisionLanguageModel]:
        """The model with its present weights, in evaluation mode, to be called in any way on any rank; all ranks enter together."""
        raise NotImplementedError

    def _accelerator(self, plugins: Sequence[object] = (), deepspeed: DeepSpeedPlugin | None = None) -> Accelerator:
        """Join the process group: NCCL on GPUs, gloo elsewhere."""
        handlers = [*plugins]
        if self.timeout is not None:
            handlers.append(InitProcessGroupKwargs(timeout=self.timeout))
        return Accelerator(
            # DeepSpeed has an autocast of its own; told twice it would make the model itself bf16
            mixed_precision="bf16" if self.settings.precision == "bf16" and deepspeed is None else "no",
            cpu=not torch.cuda.is_available() and deepspeed is None,  # with cpu=True it leaves DeepSpeed aside
            deepspeed_plugin=deepspeed,
            kwargs_handlers=handlers,  # pyright: ignore[reportArgumentType]
        )

    def _treat_blocks(self, model: VisionLanguageModel) -> None:
        """Prepare a model's blocks as configured; before it is wrapped, after it was copied."""
        kind = self.settings.attention
        if kind == "auto":
            kind = "math" if self.device.type == "cpu" else "fused"
        use_attention(model, kind)
        vision, *others = model.stacks()
        recompute_blocks([vision, *others], self.settings.activation_checkpointing)
        if self.settings.compile:
            compile_blocks([*vision], [block for stack in others for block in stack], graphs=self.settings.compile == "graphs")


def join_group(timeout: timedelta | None) -> None:
    """Join the process group, or make one of a single process, for strategies that cannot do without where Accelerate would not."""
    on_gpu = torch.cuda.is_available()
    if dist.is_initialized() or (on_gpu and "RANK" in os.environ):
        return
    backend = "nccl" if on_gpu else "gloo"
    if "RANK" in os.environ:
        dist.init_process_group(backend, timeout=timeout)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # pyright: ignore[reportPrivateImportUsage]
