"""Every rank holds a part of each tensor (FSDP2): weights, gradients and optimizer state; blocks are gathered while they compute."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import Tensor
from torch.distributed.fsdp import register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from engine.config.engine_settings import EngineSettings
from engine.optimizer import load_optimizer_tensors
from engine.strategies.base import DEPRECATED, join_group
from engine.strategies.native import Native
from engine.strategies.scalars import lengthen_scalars
from models.fusion import FusionLayer
from models.tasks.base import Task
from models.vlm import VisionLanguageModel


class FullySharded(Native):
    """FSDP2, a unit for each transformer block and one for the rest."""

    def __init__(self, settings: EngineSettings, clip_norm: float | None, timeout: timedelta | None) -> None:
        super().__init__(settings, clip_norm, timeout)
        warnings.filterwarnings("ignore", message=DEPRECATED, category=FutureWarning)
        join_group(timeout)
        self.plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2, reshard_after_forward=True, auto_wrap_policy="transformer_based_wrap", cpu_ram_efficient_loading=False
        )
        self.accelerator = self._accelerator()
        _switch_on(self.accelerator, self.plugin)

    def prepare(self, task: Task, optimizer: Optimizer) -> None:
        """See `Strategy`."""
        self.plain = copy.deepcopy(task.model)  # a shell for `whole_model`, on the CPU
        task.to(self.device)
        self._treat_blocks(task.model)
        self.scalars = lengthen_scalars(task.model, optimizer)
        self.plugin.transformer_cls_names_to_wrap = sorted({type(block).__name__ for block in task.model.blocks()})
        if self.settings.precision == "bf16":
            # as under DDP: weights are gathered and summed in float32, and autocast decides what is computed in bf16
            task.forward = torch.autocast(self.device.type, dtype=torch.bfloat16)(task.forward)
        self.task = task
        self.wrapped, prepared = self.accelerator.prepare(task, optimizer)
        self.optimizer = prepared.optimizer
        for layer in task.model.blocks():
            if isinstance(layer, FusionLayer):
                register_fsdp_forward_method(layer, "project")  # called from outside of the layer's forward

    def _whole(self, tensor: Tensor) -> Tensor:
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    @torch.no_grad()
    def load(self, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]) -> None:
        """See `Strategy`."""
        self.plain.load_state_dict(dict(model))  # the one check of names and shapes
        state = self.task.model.state_dict()
        for name, tensor in self.plain.state_dict().items():
            state[name].copy_(_placed(tensor, state[name]))
        parameters = dict(self.task.model.named_parameters())
        placed = {}
        for key, value in optimizer.items():
            name, _, state_name = key.partition("|")
            sharded = name in parameters and state_name != "step"
            placed[key] = _placed(value, parameters[name]) if sharded else value
        load_optimizer_tensors(self.optimizer, placed)

    @contextmanager
    def whole_model(self) -> Iterator[VisionLanguageModel]:
        """See `Strategy`."""
        plain, state = self.plain.to(self.device), self.task.model.state_dict()
        with torch.no_grad():
            for name, tensor in plain.state_dict().items():  # one at a time: no second whole model in memory
                tensor.copy_(self._whole(state[name]).reshape(tensor.shape))
        try:
            yield plain.eval()
        finally:
            self.plain = plain.cpu()


def _switch_on(accelerator: Accelerator, plugin: FullyShardedDataParallelPlugin) -> None:
    """Make the accelerator use FSDP2 on this device, whichever it is.

    Accelerate takes the plugin at construction on GPUs only; FSDP2 itself runs on CPUs as well, and this is what it would have set.
    """
    accelerator.state._shared_state["fsdp_plugin"] = plugin
    accelerator.state._shared_state["distributed_type"] = DistributedType.FSDP


def _placed(tensor: Tensor, like: Tensor) -> Tensor:
    """A full tensor as the shard that this rank keeps of `like`."""
    if not isinstance(like, DTensor):
        return tensor
    whole = tensor.reshape(like.shape).to(like.device)
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
