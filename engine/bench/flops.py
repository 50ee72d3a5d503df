"""Floating point operations of a step, counted on tensors without content: forward and backward of the model as configured.

What is counted are products of matrices, convolutions and attention, 2 for a multiplication with addition, as PyTorch's counter does. The
count does not depend on device and precision. Work that is done twice to save memory (activation checkpointing, features collected
before accumulated micro-batches) is counted once, as MFU is defined (arXiv 2204.02311, appendix B); padding is counted, since it is
computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from engine.bench.marks import CountMarker, StageClock
from engine.bench.stages import BACKWARD, FusionShares, replaced, staged_task
from engine.config.schema import RunConfig
from engine.tasks import make_task
from models.tasks import passes
from models.tasks.base import Task
from models.vision.normalize import normalize_images

Shapes = Mapping[str, Mapping[str, Tensor]]
"""A micro-batch by stream; the content of its tensors does not matter."""
CPU = torch.device("cpu")


class FlopCount:
    """Counts for one config; the model has no memory of its own.

    Args:
        config: of the run.
    """

    def __init__(self, config: RunConfig) -> None:
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.task = empty_task(config, self.mode)
        self._known: dict[object, dict[str, float]] = {}

    def count(self, batches: Shapes) -> dict[str, float]:
        """Operations of one micro-batch by stage; the stage "backward" holds the gradients of all others."""
        key = tuple((name, part, tuple(tensor.shape)) for name, batch in batches.items() for part, tensor in batch.items())
        if key not in self._known:
            self._known[key] = self._count(batches)
        return self._known[key]

    def _count(self, batches: Shapes) -> dict[str, float]:
        counter = FlopCounterMode(display=False)
        clock, shares = StageClock(CountMarker(counter.get_total_flops)), FusionShares()
        inputs = {name: {key: _fake(value, self.mode) for key, value in batch.items()} for name, batch in batches.items()}
        # the plain products of attention: the fused kernels of the CPU are not in PyTorch's table, those of the GPU count a recomputation
        with negatives_without_content(), staged_task(self.task, clock, shares), self.mode, counter, sdpa_kernel(SDPBackend.MATH):
            losses = self.task(inputs)
            with clock.stage(BACKWARD):
                torch.stack([self.task.weights[name] * value for name, value in losses.items()]).sum().backward()
        self.task.zero_grad()
        return shares.split({name: value for name, value in clock.take().items() if value})


def negatives_without_content() -> AbstractContextManager[None]:
    """Inside, no pass looks at which texts and images were drawn as negatives: on tensors without content nobody knows."""
    # on average drawn texts have as many tokens as those that they are drawn from; on a GPU their padding is computed along
    packed = not torch.cuda.is_available()
    packing = (passes, "packing_of_drawn", lambda packing, mask: packing if packed else None)
    return replaced([packing, (passes, "hard_negatives_one_by_one", passes.hard_negatives)])


def empty_task(config: RunConfig, mode: FakeTensorMode) -> Task:
    """A config's task in training mode, its parameters and buffers without content and memory; shared ones stay shared."""
    with torch.device("meta"):
        task = make_task(config).train()
    # constants that the model keeps must not be made while tensors are without content
    normalize_images(torch.zeros(1, 3, 1, 1, dtype=torch.uint8), task.model.dtype)
    made: dict[int, nn.Parameter] = {}
    originals = dict(task.named_parameters(remove_duplicate=False))
    for name, parameter in originals.items():
        if id(parameter) not in made:
            made[id(parameter)] = nn.Parameter(_fake(parameter.detach(), mode), parameter.requires_grad)
        owner, _, last = name.rpartition(".")
        setattr(task.get_submodule(owner), last, made[id(parameter)])
    for name, buffer in list(task.named_buffers(remove_duplicate=False)):
        owner, _, last = name.rpartition(".")
        setattr(task.get_submodule(owner), last, _fake(buffer, mode))
    return task


def _fake(tensor: Tensor, mode: FakeTensorMode) -> Tensor:
    return FakeTensor(mode, tensor.to("meta"), CPU)
