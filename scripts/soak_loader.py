"""Load many samples and watch the memory of the training process and its loader workers.

    python scripts/soak_loader.py --samples 50000

Reads the embedded data (made in a temporary folder where none is named) through the loader as pre-training does. The last fifth of the
run is compared with the second one, the first being warm-up: exits 1 where any process grew by more than --bound MB. Linux only.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script finds the project wherever it is started

from common.compat import ensure_torchvision
from common.errors import UserError
from common.scripts import run_script
from dataset.activity import LoaderStatus
from dataset.batches import MixedBatches
from dataset.config import ImageTextStream, RegionTextStream, TokenizerConfig
from dataset.loader import batch_loader
from dataset.prepare.progress import Progress
from dataset.shapeworld import write_shapeworld
from dataset.streams.build import build_stream
from dataset.tokenizers import load_tokenizer

PAGE = os.sysconf("SC_PAGE_SIZE")
PARTS = 5
"""The run is compared in so many parts: the last with the second."""


@dataclass
class Memory:
    """Resident memory of some processes over a run, in MB."""

    samples: list[int] = field(default_factory=list)
    megabytes: dict[str, list[float]] = field(default_factory=dict)

    def look(self, samples: int, processes: dict[str, int]) -> None:
        """Note the memory of each process by its name after so many samples."""
        self.samples.append(samples)
        for name, pid in processes.items():
            self.megabytes.setdefault(name, []).append(resident(pid))

    def growth(self) -> dict[str, float]:
        """MB that each process has more in the last part of the run than in the second."""
        part = len(self.samples) // PARTS
        return {name: median(values[-part:]) - median(values[part : 2 * part]) for name, values in self.megabytes.items()}


def resident(pid: int) -> float:
    """Resident memory of a process in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 2**20


def batches_of(data: Path, batch: int) -> MixedBatches:
    """The two streams of the quick start over an embedded data set, `batch` images of each in a step."""
    ensure_torchvision()  # before transformers is imported
    texts = TokenizerConfig(path=str(data / "tokenizer"))
    tokenizer = load_tokenizer(texts.path, texts.ends_with_separator)
    images = ImageTextStream(shards=str(data / "shards/images-*.tar"), batch_size=batch)
    regions = RegionTextStream(shards=str(data / "shards/regions-*.tar"), batch_size=2 * batch, max_images=batch)
    kinds = {"images": images, "regions": regions}
    return MixedBatches({name: build_stream(name, kind, tokenizer, texts, 48, 8) for name, kind in kinds.items()}, seed=1)


def soak(data: Path, samples: int, workers: int, batch: int, looks: int = 100) -> Memory:
    """Load `samples` samples with `workers` workers, looking at the memory `looks` times."""
    steps = max(-(-samples // (2 * batch)), looks)
    status, memory, show = LoaderStatus(workers), Memory(), Progress("samples")
    start = time.monotonic()
    for step, loaded in enumerate(batch_loader(batches_of(data, batch), 0, steps, workers, status), start=1):
        assert len(loaded["images"].tensors["image"]) == batch
        if step * looks // steps > (step - 1) * looks // steps:
            pids = {f"worker {worker}": status.read(worker)[0] for worker in range(workers)}
            memory.look(step * 2 * batch, {"main": os.getpid()} | {name: pid for name, pid in pids.items() if pid})
            if len(memory.samples) % (looks // 10) == 0:
                rate = step * 2 * batch / (time.monotonic() - start)
                shown = ", ".join(f"{name} {values[-1]:,.1f}" for name, values in memory.megabytes.items())
                print(f"{step * 2 * batch:>9,} samples at {rate:,.0f} a second; resident MB: {shown}", flush=True)
        show(step * 2 * batch, steps * 2 * batch)
    return memory


def check(memory: Memory, bound: float) -> None:
    """Say how much each process grew.

    Raises:
        UserError: by more than `bound` MB.
    """
    growth = memory.growth()
    told = ", ".join(f"{name} {megabytes:+.1f} MB" for name, megabytes in growth.items())
    if max(growth.values()) > bound:
        raise UserError(f"memory grew by more than {bound:g} MB after warm-up: {told}")
    print(f"memory is flat over {memory.samples[-1]:,} samples (bound {bound:g} MB a process): {told}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Load many samples and watch the memory of the training process and its workers.")
    parser.add_argument("--samples", type=int, default=50_000, help="images to load, both streams together (default: %(default)s)")
    parser.add_argument("--data", type=Path, help="folder of an embedded data set (default: 2,000 scenes in a temporary folder)")
    parser.add_argument("--workers", type=int, default=2, help="loader processes (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="images of each stream in a batch (default: %(default)s)")
    parser.add_argument("--bound", type=float, default=8.0, metavar="MB", help="growth of a process that is no leak (default: %(default)s)")
    options = parser.parse_args()

    def call() -> None:
        with tempfile.TemporaryDirectory() as folder:
            data = options.data or Path(folder) / "data"
            if options.data is None:
                write_shapeworld(data, seed=1, train=2000, validation=8, test=8, size=48)
            check(soak(data, options.samples, options.workers, options.batch), options.bound)

    return 1 if run_script(call) else 0


if __name__ == "__main__":
    sys.exit(main())
