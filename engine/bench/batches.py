"""The batches of a measurement: made beforehand from the config, or loaded as a run would; and what of them is padding.

Shapes: R texts, L tokens, M masked positions, N patches.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from common.distributed import rank, world_size
from common.labels import IGNORED
from dataset.batches import MixedBatches, StreamBatch
from dataset.loader import batch_loader
from engine.bench.report import BenchRequest
from engine.bench.synthetic import synthetic_streams
from engine.tasks import open_streams
from engine.texts import tokenizer_of

Loaded = dict[str, StreamBatch]
PREPARED_BYTES = 2 * 2**30
"""Most memory for batches made beforehand; what does not fit comes again from the first."""


@dataclass
class Fill:
    """How full the tensors of a stream's batches are."""

    rows: int = 0
    """Texts with an image, the region of one, or nothing; images without texts."""
    images: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    """R x L, or K x W of packed texts: what is computed."""
    masked: int = 0
    padded_masked: int = 0
    """R x M."""
    patches: int = 0
    """Keys that the texts' own images or regions offer them in cross-attention, the global token counted."""
    padded_patches: int = 0
    """R x (1 + N) of region texts."""

    def add(self, tensors: dict[str, Tensor]) -> None:
        """Count one batch."""
        self.images += len(tensors["image"]) if "image" in tensors else 0
        if "text_mask" not in tensors:
            self.rows += len(tensors["image"])
            return
        mask = tensors["text_mask"]
        self.rows += len(mask)
        self.tokens += int(mask.sum())
        self.padded_tokens += tensors["text_bins"].numel() if "text_bins" in tensors else mask.numel()
        if "mlm_labels" in tensors:
            self.masked += int((tensors["mlm_labels"] != IGNORED).sum())
            self.padded_masked += tensors["mlm_labels"].numel()
        if "patch_mask" in tensors:
            self.patches += int(tensors["patch_mask"].sum()) + len(mask)
            self.padded_patches += tensors["patch_mask"].numel() + len(mask)

    def numbers(self) -> dict[str, float]:
        """Means and shares, for the report."""
        if not self.padded_tokens:
            return {}
        found = {"tokens_per_text": self.tokens / self.rows, "text_padding_share": 1 - self.tokens / self.padded_tokens}
        if self.padded_masked:
            found["masked_position_padding_share"] = 1 - self.masked / self.padded_masked
        if self.padded_patches:
            found["vision_key_masked_share"] = 1 - self.patches / self.padded_patches
        return found


class Supply(Iterator[Loaded]):
    """Micro-batches, one after the other, and notes of them.

    Args:
        batches: where they come from.
        prepare_seconds: what making one step's batches took, where they were made beforehand and stay in memory; None: they are loaded.
    """

    def __init__(self, batches: Iterator[Loaded], prepare_seconds: float | None = None) -> None:
        self.batches = batches
        self.prepare_seconds = prepare_seconds
        self.forget()

    def __next__(self) -> Loaded:
        loaded = next(self.batches)
        self._taken.append(loaded)
        if self.prepare_seconds is None:
            self._note()
        return loaded

    def forget(self) -> None:
        """Begin the notes anew."""
        self._taken: list[Loaded] = []
        self._shapes: list[dict[str, dict[str, Tensor]]] = []
        self._fill: dict[str, Fill] = {}

    @property
    def shapes(self) -> list[dict[str, dict[str, Tensor]]]:
        """Each batch without content."""
        self._note()
        return self._shapes

    @property
    def fill(self) -> dict[str, Fill]:
        """All batches together, by stream."""
        self._note()
        return self._fill

    def _note(self) -> None:
        """Look at the batches taken: at once where that frees memory, else when somebody asks, so that it takes no time of a step."""
        for loaded in self._taken:
            shapes = {}
            for name, batch in loaded.items():
                shapes[name] = {key: torch.empty_like(value, device="meta") for key, value in batch.tensors.items()}
                self._fill.setdefault(name, Fill()).add(batch.tensors)
            self._shapes.append(shapes)
        self._taken = []


def make_supply(request: BenchRequest, steps: int) -> Supply:
    """The batches of so many steps of the request's config, different in each step.

    Raises:
        UserError: the batch cannot be split, or real data cannot be read.
    """
    config = request.config
    count = steps * config.engine.accumulation
    if request.data == "real":
        streams = open_streams(config, tokenizer_of(config))
        mixed = MixedBatches(streams, request.seed, rank(), world_size(), config.engine.accumulation)
        return Supply(batch_loader(mixed, 0, count, config.engine.workers))
    streams = synthetic_streams(config, request.fixed_length)
    mixed = MixedBatches(streams, request.seed, rank(), world_size(), config.engine.accumulation)
    begun, pinned = time.perf_counter(), torch.cuda.is_available()  # as the loader does
    made: list[Loaded] = []
    size = 0
    while len(made) < count and (size < PREPARED_BYTES or len(made) % config.engine.accumulation):
        made.append({name: batch.pin_memory() if pinned else batch for name, batch in mixed[len(made)].items()})
        size += sum(tensor.nbytes for batch in made[-1].values() for tensor in batch.tensors.values())
    seconds = (time.perf_counter() - begun) * config.engine.accumulation / len(made)
    return Supply((made[index % len(made)] for index in range(count)), seconds)
