"""DeepSpeed's ZeRO: ranks share out the optimizer state (stage 1), gradients too (2), weights too (3)."""

from __future__ import annotations

import copy
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import torch
from accelerate.utils import DeepSpeedPlugin
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from common.distributed import rank, world_size
from common.errors import UserError
from engine.config.engine_settings import EngineSettings
from engine.strategies.base import DEPRECATED, Owner, Snapshot, Strategy, Tensors, join_group
from engine.strategies.scalars import lengthen_scalars, to_cpu
from models.tasks.base import Task
from models.vlm import VisionLanguageModel

NO_CLIPPING = 1e30
"""A norm that is never reached: DeepSpeed takes 0 for no clipping, and then does not look whether the norm is finite."""
MOMENTS = ("exp_avg", "exp_avg_sq")


class Zero(Strategy):
    """ZeRO around our own optimizer; full tensors come and go through DeepSpeed's `safe_get` and `safe_set` functions."""

    def __init__(self, settings: EngineSettings, clip_norm: float | None, timeout: timedelta | None) -> None:
        super().__init__(settings, clip_norm, timeout)
        warnings.filterwarnings("ignore", message=DEPRECATED, category=FutureWarning)
        _ready_deepspeed()
        join_group(timeout)
        self.stage = settings.zero_stage
        self.accelerator = self._accelerator(deepspeed=DeepSpeedPlugin(hf_ds_config=_deepspeed_config(settings, clip_norm)))

    def prepare(self, task: Task, optimizer: Optimizer) -> None:
        """See `Strategy`."""
        self.plain = copy.deepcopy(task.model) if self.stage == 3 else None  # a shell for `whole_model`, on the CPU
        task.to(self.device)
        self.task = task
        self._treat_blocks(task.model)
        self.scalars = lengthen_scalars(task.model, optimizer)
        self.parameters: dict[str, nn.Parameter] = dict(task.model.named_parameters())
        os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed insists, in a single process too
        self.wrapped, prepared = self.accelerator.prepare(task, optimizer)
        self.engine: Any = self.wrapped
        self.zero: Any = prepared.optimizer
        self.optimizer = self.zero.optimizer
        self.engine.set_gradient_accumulation_boundary(True)

    @contextmanager
    def unsynchronised(self) -> Iterator[None]:
        """DeepSpeed reduces gradients by itself; it only wants to know which micro-batch is the last."""
        self.engine.set_gradient_accumulation_boundary(False)
        try:
            yield
        finally:
            self.engine.set_gradient_accumulation_boundary(True)

    def backward(self, loss: Tensor) -> None:
        """See `Strategy`."""
        self.engine.backward(loss, scale_wrt_gas=False)

    def update(self) -> Tensor:
        """See `Strategy`."""
        self.engine.step()  # clips, looks whether the norm is finite, and skips the step where it is not
        return torch.as_tensor(float(self.engine.get_global_grad_norm()), device=self.device)

    @torch.no_grad()
    def keep_in_range(self) -> None:
        """See `Strategy`."""
        for full_name, (low, high) in self.task.bounds().items():
            name = full_name.removeprefix("model.")
            if not self.parameters[name].requires_grad:
                continue
            self._set(name, self._full(self.parameters[name]).clamp(low, high))

    @torch.no_grad()
    def snapshot(self, model_owner: Owner, optimizer_owner: Owner | None) -> Snapshot:
        """See `Strategy`."""
        kept = set(model_owner({name: 4 * numel for name, numel in self._shapes().items()}))
        model: Tensors = {}
        for name, tensor in self.task.model.state_dict(keep_vars=True).items():
            whole = self._full(tensor)  # all ranks gather all tensors in one order, and keep their own
            if name in kept:
                model[name] = to_cpu(name, whole, self.scalars)
        return Snapshot(model, {} if optimizer_owner is None else self._moments(optimizer_owner))

    def _full(self, tensor: Tensor) -> Tensor:
        """A full tensor of the model, in float32 what is trained; all ranks together."""
        from deepspeed.utils import safe_get_full_fp32_param

        trained = safe_get_full_fp32_param(tensor) if tensor.requires_grad else None
        if trained is not None:
            return trained
        with self._gathered([tensor]):
            return tensor.detach().clone()

    def _shapes(self) -> dict[str, int]:
        """Elements of every full tensor of the model."""
        state = self.task.model.state_dict(keep_vars=True)
        return {name: getattr(tensor, "ds_numel", tensor.numel()) for name, tensor in state.items()}

    def _moments(self, owner: Owner) -> Tensors:
        from deepspeed.utils import safe_get_full_optimizer_state

        states = [state for state in self.optimizer.state.values() if "step" in state]
        if not states:
            return {}  # before the first step
        step = float(states[0]["step"])
        self._link()
        shapes = self._shapes()
        names = {f"{name}|{key}": 4 * shapes[name] for name in self.parameters for key in MOMENTS} | {
            f"{name}|step": 4 for name in self.parameters
        }
        kept = set(owner(names))
        found: Tensors = {}
        for name, parameter in self.parameters.items():
            if not parameter.requires_grad:
                continue
            for key in MOMENTS:  # all ranks gather all tensors in one order, and keep their own
                whole = safe_get_full_optimizer_state(parameter, key)
                assert whole is not None, "every trained parameter has its moments after the first step"
                if f"{name}|{key}" in kept:
                    found[f"{name}|{key}"] = to_cpu(f"{name}|{key}", whole, self.scalars)
            if f"{name}|step" in kept:
                found[f"{name}|step"] = torch.tensor(step)
        return found

    @torch.no_grad()
    def load(self, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]) -> None:
        """See `Strategy`."""
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        state = self.task.model.state_dict(keep_vars=True)
        if odd := sorted(state.keys() ^ model.keys()):
            raise UserError(f"The saved weights do not fit this model: {len(odd)} tensors differ, first {odd[0]}.")
        for name, tensor in state.items():
            if name in self.parameters:
                self._set(name, model[name].to(self.device))
            else:
                tensor.copy_(model[name])
        if not optimizer:
            return
        flats = self.zero.fp32_partitioned_groups_flat if self.stage == 3 else self.zero.single_partition_of_fp32_groups
        step = next(value for name, value in optimizer.items() if name.endswith("|step"))
        for flat in flats:
            fused = any(group.get("fused") for group in self.optimizer.param_groups)
            self.optimizer.state[flat] = {"step": step.to(flat.device if fused else "cpu", copy=True)} | {
                key: torch.zeros_like(flat) for key in MOMENTS
            }
        self._link()
        for name, parameter in self.parameters.items():
            for key in MOMENTS if parameter.requires_grad else ():
                value = optimizer[f"{name}|{key}"].to(self.device)
                if self.stage == 3:
                    safe_set_local_optimizer_state(parameter, _part(value, parameter), key)
                else:
                    safe_set_full_optimizer_state(parameter, value, key)

    def _link(self) -> None:
        """Let DeepSpeed find the optimizer's state of each parameter; its own link after the first step misses all groups but one."""
        if self.stage < 3:
            self.zero._hp_optimizer_states_linked = False
            self.zero._lazy_init_hp_params_optimizer_state()

    def _set(self, name: str, value: Tensor) -> None:
        """Give a parameter a value: the copy that computes and the one that the optimizer updates."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_local_fp32_param

        parameter = self.parameters[name]
        with self._gathered([parameter], writing=True):
            parameter.data.copy_(value.reshape(parameter.shape))
        if parameter.requires_grad and self.stage == 3:
            safe_set_local_fp32_param(parameter, _part(value.float(), parameter))
        elif parameter.requires_grad:
            safe_set_full_fp32_param(parameter, value.float())

    def _gathered(self, tensors: list[Tensor], writing: bool = False) -> AbstractContextManager[Any]:
        """Tensors whole on every rank inside; written to, all ranks write the same."""
        if self.stage < 3 or not hasattr(tensors[0], "ds_id"):
            return nullcontext()
        import deepspeed

        return deepspeed.zero.GatheredParameters(tensors, modifier_rank=0 if writing else None)

    @contextmanager
    def whole_model(self) -> Iterator[VisionLanguageModel]:
        """See `Strategy`."""
        if self.plain is None:
            self.task.eval()
            try:
                yield self.task.model
            finally:
                self.task.train()
            return
        plain, state = self.plain.to(self.device), self.task.model.state_dict(keep_vars=True)
        with torch.no_grad():
            for name, tensor in plain.state_dict().items():
                tensor.copy_(self._full(state[name]).reshape(tensor.shape))
        try:
            yield plain.eval()
        finally:
            self.plain = plain.cpu()


def _part(value: Tensor, parameter: Any) -> Tensor:
    """This rank's part of a full tensor in stage 3: equal lengths, the last one padded."""
    length = parameter.partition_numel()
    padded = functional.pad(value.flatten(), (0, length * world_size() - value.numel()))
    return padded.narrow(0, length * rank(), length)


def _deepspeed_config(settings: EngineSettings, clip_norm: float | None) -> dict[str, Any]:
    """DeepSpeed's own configuration; everything else it decides is left to us."""
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,  # it only counts with it
        "gradient_accumulation_steps": settings.accumulation,
        "gradient_clipping": clip_norm or NO_CLIPPING,
        "zero_optimization": {"stage": settings.zero_stage},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**31,
    }
    if settings.precision == "bf16":
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    return config


def _ready_deepspeed() -> None:
    """Import DeepSpeed on the device that there is.

    Raises:
        UserError: it is not installed.
    """
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        import deepspeed.ops
    except ImportError as error:
        message = 'engine.strategy is deepspeed, but the package is not installed: pip install "multigrain[deepspeed]". Or set it to fsdp.'
        raise UserError(message) from error
    # a CPU extension that would be compiled at the first start and that nothing here needs
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
