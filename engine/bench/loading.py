"""Images a second and core of every layout that training reads, beside the published pipeline: `run.py bench --stages load`.

The same records are written in each layout into a temporary folder, so that layouts and pipelines differ and nothing else does. Batches
are made in this process by one thread, in rounds that go through all layouts in turn, so that a machine whose speed drifts drifts for
all. The clock is CPU time: a core that does nothing but load gives so many images. Files are read from the page cache.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

import cv2
import numpy as np
import torch

from common.errors import UserError
from dataset.batches import MixedBatches
from dataset.config import ImageTextStream, RegionTextStream
from dataset.masking import MaskVocabulary
from dataset.order import sample_rng
from dataset.prepare.pack import advised_shortest_sides
from dataset.records import RecordSource, open_source
from dataset.storage import Storage
from dataset.streams.build import build_stream
from dataset.text import caption_texts
from dataset.tokenizers import load_tokenizer, train_wordpiece
from engine.bench.loading_layouts import (
    BASE64,
    Layout,
    Records,
    first_records,
    write_image_files,
    write_json_lines,
    write_shards,
    write_shrunk_shards,
)
from engine.bench.photographs import photograph_records
from engine.bench.published_loading import PublishedImages, PublishedRegions, PublishedText
from engine.bench.report import BenchReport, BenchRequest, Comparison
from engine.config.schema import RunConfig
from evaluation.tables import Table

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RECORDS = 96
"""So many records are measured, over and over."""
BATCH = 32
"""Images of a batch."""
PUBLISHED = "published pipeline, JSON lines"
NOTES = (
    "images/s/core: images by seconds of CPU time, median over the rounds; files lie in the page cache. The published pipeline normalises "
    "on the host; here the device does it.",
    "The published pipeline is re-enacted from its description, with this project's RandAugment, masking and tokenizer, which are faster "
    "than the originals.",
)
Stream = ImageTextStream | RegionTextStream
Key = TypeVar("Key")
NextBatch = Callable[[int], Any]
"""Makes the batch of a round."""


@dataclass
class Timing:
    """Seconds of each round."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    @property
    def images_per_second(self) -> float:
        """By CPU time, that is on a core."""
        return BATCH / median(self.cpu)

    def numbers(self, layout: Layout, published: Timing) -> dict[str, float]:
        """What is reported of a layout."""
        return {
            "images_per_second_per_core": self.images_per_second,
            "images_per_second_wall": BATCH / median(self.wall),
            "bytes_per_image": layout.bytes_per_image,
            "times_published": self.images_per_second / published.images_per_second,
        }


def run(request: BenchRequest) -> BenchReport:
    """Measure the config's pre-training streams: with `data` "real" on their own records (up to `RECORDS` of each), else on synthetic
    photographs. Comparisons are made on the shards.

    Returns:
        numbers: "streams" {stream: {layout: {images_per_second_per_core, images_per_second_wall, bytes_per_image, times_published}}},
        "comparisons" [{key, stream, layout, images_per_second_per_core {value: number}, times_first {value: [least, median, greatest]}}].

    Raises:
        UserError: the config is not one of pre-training, or its records cannot be used.
    """
    streams = _streams(request.config)
    results: dict[str, dict[str, dict[str, float]]] = {}
    comparisons: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch, _single_thread():
        synthetic = Records(photograph_records(RECORDS, request.seed)) if request.data == "synthetic" else None
        tokenizer = _tokenizer(request.config, synthetic, Path(scratch))
        for name, stream in streams.items():
            records = first_records(synthetic or _source(request.config, stream), RECORDS)
            written = _write(records, Path(scratch) / name, request.config.model.vision.image_size)
            batches = {layout: _ours(request.config, name, layout, tokenizer) for layout in written}
            base64 = next(layout for layout in written if layout.settings.get("image_key") == BASE64)
            published = Layout(PUBLISHED, base64.settings, base64.bytes_per_image)
            timings = _measure(batches | {published: _published(request.config, name, published, tokenizer)}, request)
            results[name] = {layout.name: timing.numbers(layout, timings[published]) for layout, timing in timings.items()}
            shards = [layout for layout in written if not layout.settings.get("image_key")]
            comparisons += [_compare(request, given, name, layout, tokenizer) for given in request.comparisons for layout in shards]
    tables = {"": _table(results)} | ({"Settings compared": _comparison_table(comparisons)} if comparisons else {})
    return BenchReport(_title(request), tables, {"streams": results, "comparisons": comparisons}, NOTES)


def _title(request: BenchRequest) -> str:
    data = "synthetic photographs" if request.data == "synthetic" else f"the records of {request.path}"
    size = request.config.model.vision.image_size
    return f"Loading {data} for {size} px: {request.steps} rounds of {BATCH} images, one process, one thread"


def _streams(config: RunConfig) -> dict[str, Stream]:
    found = {name: settings for name, settings in config.batches().items() if isinstance(settings, ImageTextStream | RegionTextStream)}
    if not found:
        raise UserError(f"--stages load measures pre-training streams; task {config.task} has none.")
    return found


def _tokenizer(config: RunConfig, synthetic: Records | None, scratch: Path) -> PreTrainedTokenizerBase:
    if synthetic is None:
        return load_tokenizer(config.tokenizer.path, config.tokenizer.ends_with_separator)
    texts = [text for record in synthetic.records for text in caption_texts(record.annotation["caption"])]
    train_wordpiece(texts, scratch / "tokenizer", 500)
    return load_tokenizer(scratch / "tokenizer")


def _source(config: RunConfig, stream: Stream) -> RecordSource:
    patterns = [stream.shards] if isinstance(stream.shards, str) else stream.shards
    return open_source(patterns, image_key=stream.image_key, image_root=stream.image_root, storage=Storage(config.storage))


def _write(records: Records, folder: Path, image_size: int) -> list[Layout]:
    return [
        *(write_shrunk_shards(records, folder, side) for side in advised_shortest_sides(image_size)),
        write_shards(records, folder),
        write_image_files(records, folder),
        write_json_lines(records, folder),
    ]


def _settings(config: RunConfig, name: str, layout: Layout) -> Stream:
    """The stream's settings, to read this layout in batches of `BATCH` images."""
    stream = _streams(config)[name]
    changed: dict[str, Any] = {"caption_key": "caption", "batch_size": BATCH, "groups": None}
    if isinstance(stream, RegionTextStream):
        rows = max(1, stream.batch_size * BATCH // stream.max_images)
        changed |= {"batch_size": rows, "max_images": BATCH}
    return stream.model_copy(update=changed | layout.settings)


def _ours(config: RunConfig, name: str, layout: Layout, tokenizer: PreTrainedTokenizerBase) -> NextBatch:
    vision = config.model.vision
    stream = build_stream(name, _settings(config, name, layout), tokenizer, config.tokenizer, vision.image_size, vision.stride)
    batches = MixedBatches({name: stream}, config.seed)
    return lambda number: batches[number]


def _published(config: RunConfig, name: str, layout: Layout, tokenizer: PreTrainedTokenizerBase) -> NextBatch:
    settings, vision = _settings(config, name, layout), config.model.vision
    files = [Path(str(settings.shards))]
    text = PublishedText(tokenizer, MaskVocabulary.of(tokenizer), config.tokenizer.max_tokens, settings.masking)
    if isinstance(settings, RegionTextStream):
        pipeline = PublishedRegions(files, settings, text, vision.image_size, vision.stride)
    else:
        pipeline = PublishedImages(files, settings, text, vision.image_size)
    return lambda number: pipeline.batch(BATCH, sample_rng(config.seed, name, number))


def _measure(batches: Mapping[Key, NextBatch], request: BenchRequest) -> dict[Key, Timing]:
    """Go through all of them in turn, again and again."""
    timings = {key: Timing() for key in batches}
    for number in range(request.warmup + request.steps):
        for key, batch in batches.items():
            cpu, wall = time.process_time(), time.perf_counter()
            batch(number)
            if number >= request.warmup:
                timings[key].cpu.append(time.process_time() - cpu)
                timings[key].wall.append(time.perf_counter() - wall)
    return timings


def _compare(
    request: BenchRequest, comparison: Comparison, name: str, layout: Layout, tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    """One layout read with each of the values."""
    pairs = zip(comparison.values, comparison.configs, strict=True)
    timings = _measure({value: _ours(config, name, layout, tokenizer) for value, config in pairs}, request)
    first = timings[comparison.values[0]]
    ratios = {value: sorted(np.divide(first.cpu, timing.cpu).tolist()) for value, timing in timings.items()}
    return {
        "key": comparison.key,
        "stream": name,
        "layout": layout.name,
        "images_per_second_per_core": {value: timing.images_per_second for value, timing in timings.items()},
        "times_first": {value: [found[0], median(found), found[-1]] for value, found in ratios.items()},
    }


@contextmanager
def _single_thread() -> Iterator[None]:
    """One thread for OpenCV and PyTorch, as in a loader process; PyTorch's generator is left as it was."""
    opencv, pytorch = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield
    finally:
        cv2.setNumThreads(opencv)
        torch.set_num_threads(pytorch)


def _table(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Table:
    rows = [
        (
            stream,
            layout,
            f"{found['images_per_second_per_core']:,.0f}",
            f"{found['images_per_second_wall']:,.0f}",
            f"{found['bytes_per_image'] / 1e3:,.0f}",
            f"{found['bytes_per_image'] * found['images_per_second_per_core'] / 1e6:,.0f}",
            f"{found['times_published']:.2f}",
        )
        for stream, layouts in results.items()
        for layout, found in layouts.items()
    ]
    columns = ("stream", "layout", "images/s/core", "images/s (wall)", "kB an image", "MB/s read", "times published")
    return Table(columns, tuple(rows), (False, False, True, True, True, True, True))


def _comparison_table(comparisons: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            found["stream"],
            found["layout"],
            f"{found['key']}={value}",
            f"{found['images_per_second_per_core'][value]:,.0f}",
            f"{ratio:.2f} ({least:.2f} to {greatest:.2f})",
        )
        for found in comparisons
        for value, (least, ratio, greatest) in found["times_first"].items()
    ]
    columns = ("stream", "layout", "setting", "images/s/core", "times the first (range)")
    return Table(columns, tuple(rows), (False, False, False, True, True))
