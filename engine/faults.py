"""Unusable records: counted over all ranks, listed in a file, fatal beyond a share."""

import logging
from collections.abc import Iterable
from pathlib import Path

import torch

from common.distributed import sum_over_ranks
from common.errors import UserError
from dataset.batches import StreamBatch
from engine.checkpoints.state import TrainState

logger = logging.getLogger(__name__)
SHOWN = 3
"""Faults written to the log at a time; all are in the file."""


class FaultCounter:
    """Collects what the loader skipped; only `settle` talks to other ranks."""

    def __init__(self, file: Path, limit: float) -> None:
        self.file = file
        self.limit = limit
        self.seen = 0
        self.faults: list[str] = []

    def add(self, batches: Iterable[StreamBatch]) -> None:
        """Note the records of one micro-batch."""
        for batch in batches:
            self.seen += batch.seen
            self.faults.extend(batch.faults)

    def settle(self, state: TrainState, device: torch.device) -> None:
        """Add the counts of all ranks to the run's state; all ranks stop together when too many records are unusable.

        Raises:
            UserError: above the limit, with an example.
        """
        if self.faults:
            for fault in self.faults[:SHOWN]:
                logger.warning("skipped: %s", fault)
            with self.file.open("a") as file:
                file.writelines(f"{fault}\n" for fault in self.faults)
        example = f"; for example {self.faults[0]}" if self.faults else ""
        seen, faults = sum_over_ranks(torch.tensor([self.seen, len(self.faults)], device=device)).tolist()
        self.seen, self.faults = 0, []
        state.seen += seen
        state.faults += faults
        if state.faults > self.limit * state.seen:
            raise UserError(
                f"{state.faults} of {state.seen} records read so far are unusable, more than engine.max_bad_share = {self.limit:g} "
                f"allows{example}. All are listed in {self.file}."
            )
