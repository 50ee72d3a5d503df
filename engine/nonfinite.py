"""Steps whose loss or gradient is not a number: left out before they reach the weights, written down, and fatal when they go on.

The strategy has already left the step out on the device (`Strategy.update`); here the host learns of it, two steps later so that it never
waits for the device, and on all ranks at the same step because the gradient's norm is the same on all.
"""

import json
import logging
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from common.distributed import is_main, rank
from common.errors import UserError
from common.files import replace_file
from dataset.batches import MixedBatches

logger = logging.getLogger(__name__)

FOLDER = "nonfinite"  # in the folder of a run
WHOLE_BATCHES = 20
"""Bad steps of a start whose batches are written whole; of later ones, the names of the records."""
DELAY = 2
"""Steps after which the host reads what became of one; the device is done with it by then."""


@dataclass(frozen=True)
class _Note:
    step: int
    numbers: dict[str, Tensor]
    norm: Tensor
    """Of the gradient, on its way to the host."""
    arrived: torch.cuda.Event | None

    @classmethod
    def of(cls, step: int, numbers: dict[str, Tensor]) -> "_Note":
        """Start the norm on its way."""
        norm = numbers["gradient_norm"].detach()
        if norm.device.type != "cuda":
            return cls(step, numbers, norm.cpu(), None)
        host = torch.empty((), dtype=norm.dtype, pin_memory=True)
        host.copy_(norm, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        return cls(step, numbers, host, arrived)

    def norm_on_host(self) -> float:
        """The norm; waits for it where it is still on its way."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return float(self.norm)


class NonfiniteSteps:
    """Watches a training's steps.

    Args:
        output_dir: of the run; bad batches go into a folder of it.
        batches: of this rank, read again when one is to be written down.
        accumulation: micro-batches of a step.
        limit: so many bad steps in a row are left out; one more ends the run.
        about: settings that are written down beside the batch.
    """

    def __init__(self, output_dir: Path, batches: MixedBatches, accumulation: int, limit: int, about: Mapping[str, object]) -> None:
        self.folder = output_dir / FOLDER
        self.batches = batches
        self.accumulation = accumulation
        self.limit = limit
        self.about = dict(about)
        self.in_a_row: list[int] = []
        self.count = 0
        """Bad steps since the last `take_count`."""
        self.written = 0
        self._notes: deque[_Note] = deque()

    def note(self, step: int, numbers: dict[str, Tensor]) -> None:
        """Take a step's losses and gradient norm, device scalars; looks at those of `DELAY` steps ago.

        Raises:
            UserError: on all ranks at the same step, when too many in a row were bad.
        """
        self._notes.append(_Note.of(step, numbers))
        while len(self._notes) > DELAY:
            self._look(self._notes.popleft())

    def settle(self) -> None:
        """Look at the steps that are still open: before a checkpoint and at the end. Raises as `note`."""
        while self._notes:
            self._look(self._notes.popleft())

    def take_count(self) -> int:
        """Bad steps since the last call."""
        count, self.count = self.count, 0
        return count

    def _look(self, note: _Note) -> None:
        if math.isfinite(note.norm_on_host()):
            self.in_a_row.clear()
            return
        self.in_a_row.append(note.step)
        self.count += 1
        values = {name: float(value) for name, value in note.numbers.items()}
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        self._write(note.step, values)
        if is_main():
            logger.warning("step %d left out: %s not finite; its batch is in %s", note.step, ", ".join(bad), self.folder)
        if len(self.in_a_row) > self.limit:
            steps = ", ".join(map(str, self.in_a_row))
            raise UserError(
                f"Loss or gradient was not finite in {len(self.in_a_row)} steps in a row ({steps}); engine.max_nonfinite is {self.limit}. "
                f"No weight changed in them; their batches are in {self.folder}. Lower optimizer.lr, or look at the batches."
            )

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        """The step's batch on this rank, made again from the data, and what is known about it. A full disk must not end the run."""
        try:
            self.folder.mkdir(exist_ok=True)
            self.written += 1
            for micro in range(self.accumulation):
                name = f"step-{step:08d}-rank-{rank():05d}" + (f"-micro-{micro}" if self.accumulation > 1 else "")
                streams = self.batches[(step - 1) * self.accumulation + micro]
                if self.written <= WHOLE_BATCHES:
                    tensors = {f"{stream}.{key}": tensor for stream, batch in streams.items() for key, tensor in batch.tensors.items()}
                    save_file(tensors, self.folder / f"{name}.safetensors")
                records = {stream: list(batch.keys) for stream, batch in streams.items()}
                replace_file(
                    self.folder / f"{name}.json",
                    json.dumps({"step": step, "rank": rank(), "numbers": values, "records": records, **self.about}, indent=1),
                )
        except (OSError, SafetensorError, UserError) as error:
            logger.warning("the batch of step %d could not be written down: %s", step, error)
