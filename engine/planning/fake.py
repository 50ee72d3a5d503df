"""A training step on tensors that have shapes and no memory: what it keeps, its peak, and its operations, as they would be on a GPU.

Parameters and activations are PyTorch's fake tensors: every operation only says what it would give, and autograd keeps what it would keep.
They stand on the CPU, because a build without CUDA can fake no other device; what GPUs do otherwise is put in its place (`gpu_kernels`).
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine.bench.flops import empty_task, negatives_without_content
from engine.blocks import Recomputed, recompute_blocks
from engine.config.schema import RunConfig
from engine.planning.shapes import Shapes
from engine.step import turns_of
from models.tasks.base import Task

MASK_ALIGNMENT = 16
"""Attention kernels want rows of a mask aligned to so many elements; PyTorch pads a copy."""


@contextmanager
def gpu_kernels() -> Iterator[None]:
    """What a GPU does otherwise than a CPU, as far as memory goes, for every model inside.

    - Attention is one fused kernel (FlashAttention or memory-efficient attention) that keeps its inputs, its output and a sum a row, and
      never the probabilities; with dropout a CPU would fall back to computing and keeping them.
    - Under autocast LayerNorm takes and gives float32; on a CPU it would stay in bf16.
    - Dropout keeps a mask of one byte an element.
    """
    ours = {"scaled_dot_product_attention": _fused_attention, "dropout": _dropout, "layer_norm": _layer_norm}
    before = {name: getattr(F, name) for name in ours}
    for name, function in ours.items():
        setattr(F, name, function)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(F, name, function)


def _dropout(states: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    return torch.native_dropout(states, p, True)[0] if training and p > 0 else states


def _layer_norm(
    states: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    return torch.layer_norm(states.float() if torch.is_autocast_enabled("cpu") else states, tuple(normalized_shape), weight, bias, eps)


def _fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The memory-efficient kernel; FlashAttention keeps the same. A mask, or a bias [.., L, P], is one tensor of the inputs' type."""
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
    query, key, value = (states.to(dtype) for states in (query, key, value))  # [.., L, d], [.., P, d], [.., P, d]
    bias = None
    if attn_mask is not None:
        bias = torch.zeros_like(attn_mask, dtype=dtype) if attn_mask.dtype == torch.bool else attn_mask.to(dtype)
        keys = bias.shape[-1]
        if odd := -keys % MASK_ALIGNMENT:
            bias = F.pad(bias, (0, odd))[..., :keys]
        bias = bias.expand(*query.shape[:-1], keys)
    attend = torch.ops.aten._scaled_dot_product_efficient_attention
    return attend(query, key, value, bias, True, dropout_p, is_causal, scale=scale)[0]


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors made inside that are alive, now and at most; a storage counts once, however many tensors look at it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [leaf for leaf in (out if isinstance(out, (tuple, list)) else (out,)) if isinstance(leaf, Tensor)]
        if made:
            given = {_storage_id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
            for leaf in made:
                if _storage_id(leaf) not in given:
                    self._add(leaf)
        return out

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        identity, size = storage._cdata, storage.nbytes()
        if identity in self.known:
            return
        self.known.add(identity)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._remove, identity, size)

    def _remove(self, identity: int, size: int) -> None:
        self.known.discard(identity)
        self.now -= size


def _storage_id(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one forward and backward pass beyond weights, gradients, optimizer state and the batch itself."""

    kept: int
    """Alive between the two: what was saved for the backward pass, and the losses."""
    peak: int
    """Most at any time."""


class FakeStep:
    """A config's task without memory.

    Args:
        config: of any task.
        on_gpu: as it would be on a GPU; otherwise as a CPU does it.
    """

    def __init__(self, config: RunConfig, on_gpu: bool = True) -> None:
        self.on_gpu = on_gpu
        self.config = config
        self.side = config.model.vision.image_size
        self.mode = FakeTensorMode()

    def task(self, recomputed: Recomputed = False) -> Task:
        """A new task in training mode, its blocks recomputed as said."""
        task = empty_task(self.config, self.mode)
        recompute_blocks(task.model.stacks(), recomputed)
        return task

    def memory(self, shapes: Shapes, recomputed: Recomputed = False) -> StepMemory:
        """What one pass over a micro-batch takes."""
        task = self.task(recomputed)
        with self._computing():
            batches = self._batches(shapes)
            for parameter in task.parameters():
                parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
            kept = 0
            with LiveBytes() as live:
                for turn in self._turns(task, batches):
                    with self._precision():
                        losses = task({name: batches[name] for name in turn})
                    total = torch.stack(list(losses.values())).sum()
                    kept = max(kept, live.now)
                    total.backward()
                    del losses, total
        return StepMemory(kept, live.peak)

    def _turns(self, task: Task, batches: Mapping[str, Mapping[str, Tensor]]) -> list[list[str]]:
        """As the engine's steps have them, of all their updates."""
        settings = self.config.engine
        updates = [{name: batches[name] for name in group if name in batches} for group in settings.updates or [list(batches)]]
        return [turn for present in updates if present for turn in turns_of(task, settings, present)]

    def _batches(self, shapes: Shapes) -> dict[str, dict[str, Tensor]]:
        return {name: shape.tensors(self.side) for name, shape in shapes.items()}

    @contextmanager
    def _computing(self) -> Iterator[None]:
        with self.mode, negatives_without_content(), gpu_kernels() if self.on_gpu else nullcontext():
            yield

    def _precision(self) -> AbstractContextManager[Any]:
        return torch.autocast("cpu", dtype=torch.bfloat16) if self.config.engine.precision == "bf16" else nullcontext()
