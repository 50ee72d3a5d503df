"""Memory of a step: the most that was in use, and what the forward pass keeps for the backward pass."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class SavedBytes:
    """Counts the memory that the graph of a forward pass keeps alive; parameters are left out, and views count as what they are of. Of
    several passes, each differentiated before the next, the one that keeps most counts.

    Under activation checkpointing the inputs of a recomputed block count only where something else keeps them too; under FSDP the
    gathered weights count.
    """

    def __init__(self, module: nn.Module) -> None:
        whole = [parameter for parameter in module.parameters() if not isinstance(parameter, DTensor)]
        self._left_out = {parameter.untyped_storage().data_ptr() for parameter in whole}
        self._sizes: dict[int, int] = {}
        self._most = 0
        self._differentiated = False

    @property
    def total(self) -> int:
        """Bytes."""
        return max(self._most, sum(self._sizes.values()))

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Forward and backward passes inside are counted."""
        with torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack):
            yield

    def _pack(self, tensor: Tensor) -> Tensor:
        if self._differentiated:
            self._most, self._sizes, self._differentiated = self.total, {}, False
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._left_out:
            self._sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    def _unpack(self, tensor: Tensor) -> Tensor:
        self._differentiated = True
        return tensor


def forget_peak(device: torch.device) -> None:
    """Begin to look for the most memory; on the CPU it is that of the whole process, from its start."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    """CUDA: most memory of live tensors since `forget_peak`. CPU: most resident memory of this process since it began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        # not ru_maxrss where it can be helped: on Linux a process starts with that of the one it was forked from
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
