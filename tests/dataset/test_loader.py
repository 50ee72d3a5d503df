"""The loader: what it says of itself, how it ends when a worker is killed, and that few shards and records do not matter."""

import multiprocessing
import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch

from common.errors import UserError
from dataset.activity import LoaderStatus, doing, shown_in
from dataset.batches import MixedBatches, StreamBatch
from dataset.config import ImageTextStream, MaskingConfig, StorageSettings
from dataset.loader import LoaderKilled, batch_loader
from dataset.records import Record
from dataset.shards import ShardSource, ShardWriter
from dataset.storage import Storage
from dataset.streams.base import ROWS_PER_RECORD, TextSide
from dataset.streams.image_text import ImageTexts
from fake_records import Records, encoded, image_records, picture, small_tokenizer


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> TextSide:
    return TextSide(small_tokenizer(tmp_path_factory.mktemp("tokenizer")), 24, MaskingConfig(max_masks=6))


def batches(source, text: TextSide, rank: int = 0, world: int = 1, batch: int = 4) -> MixedBatches:
    config = ImageTextStream(shards="x", batch_size=batch)
    return MixedBatches({"images": ImageTexts("images", source, config, text, 32)}, 3, rank, world)


class Stalls(MixedBatches):
    """Batch 1 takes for ever."""

    def __getitem__(self, index: int) -> dict[str, StreamBatch]:
        if index == 1:
            with doing("reading far.tar"):
                time.sleep(600)
        return super().__getitem__(index)


def test_a_stalled_loader_says_which_worker_reads_which_shard_since_when(text: TextSide):
    status = LoaderStatus(2)
    assert status.describe() == "the loader is idle: its workers wait to be asked for batches"
    loader = batch_loader(Stalls(batches(image_records(12), text).streams, 3), 0, 9, 2, status)
    next(loader)  # batch 0, of worker 0
    deadline = time.monotonic() + 60
    while status.read(1)[1] != "reading far.tar" and time.monotonic() < deadline:
        time.sleep(0.01)
    pid, _, _ = status.read(1)
    assert re.fullmatch(rf"loader worker 1 \(pid {pid}\) has been reading far\.tar for \d+ s", status.describe())
    assert status.of_process(pid) == "reading far.tar"
    assert pid in {process.pid for process in multiprocessing.active_children()}
    os.kill(pid, signal.SIGKILL)


def test_what_is_done_in_the_training_process_is_described_too():
    status = LoaderStatus(0)
    with shown_in(status.slot(0)), doing("preparing a batch of stream images"):
        with doing("reading " + "x" * 600 + "a.tar"):
            assert status.describe().startswith(f"the loader, in the training process (pid {os.getpid()}), has been ")
            assert status.describe().endswith("xxa.tar for 0 s")
        assert "preparing a batch of stream images" in status.describe()
    assert status.describe() == "the loader is idle"


def test_reads_are_shown_by_their_shard(text: TextSide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_shard(tmp_path, 6)
    status, seen, real = LoaderStatus(0), [], os.pread

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        seen.append(status.read(0)[1])
        return real(descriptor, size, offset)

    source = ShardSource(str(tmp_path / "few-*.tar"))
    monkeypatch.setattr("os.pread", pread)
    list(batch_loader(batches(source, text), 0, 1, 0, status))
    assert set(seen) == {f"reading {tmp_path / 'few-000000.tar'}"}


class Kills(Records):
    """Reading record 0 kills the worker, as the kernel does when memory ends."""

    def __getitem__(self, index: int) -> Record:
        if index == 0:
            with doing("reading far.tar"):
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def test_workers_in_the_middle_of_a_batch_end_with_their_loader(text: TextSide):
    before = set(multiprocessing.active_children())
    loader = batch_loader(Stalls(batches(image_records(12), text).streams, 3), 0, 9, 2)
    next(loader)
    workers = set(multiprocessing.active_children()) - before
    loader.close()
    for worker in workers:
        worker.join(timeout=20)  # they would sleep for ten minutes, and ignore SIGTERM
    assert [worker.is_alive() for worker in workers] == [False, False]


def test_a_killed_worker_ends_the_run_with_one_line(text: TextSide):
    before = signal.getsignal(signal.SIGCHLD)
    loader = batch_loader(batches(Kills(image_records(12).records), text, rank=1, world=2), 0, 9, 2)
    with pytest.raises(LoaderKilled) as caught:
        list(loader)
    message = str(caught.value)
    assert message.startswith("a loader process of rank 1 (pid ")
    assert "was killed (signal 9; out of memory?) while reading far.tar. Give the machine more memory" in message
    assert "\n" not in message
    assert isinstance(caught.value, UserError)  # one line and no traceback,
    assert caught.value.exit_code == 1  # but not bad input: it may work the next time
    assert signal.getsignal(signal.SIGCHLD) is before  # nothing is raised in the middle of a step


class Breaks(Records):
    def __getitem__(self, index: int) -> Record:
        raise RuntimeError("a bug")


def test_a_bug_in_a_worker_keeps_its_traceback(text: TextSide):
    with pytest.raises(RuntimeError, match="a bug") as caught:
        list(batch_loader(batches(Breaks(image_records(12).records), text), 0, 2, 1))
    assert "Traceback" in str(caught.value)


def write_shard(folder: Path, samples: int) -> None:
    with ShardWriter(folder, "few", 100) as writer:
        for number in range(samples):
            writer.write(f"key{number}", encoded(picture(number)), {"caption": f"number {number}"}, "png")


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
def test_one_shard_feeds_three_workers_of_two_ranks_with_every_record_once(text: TextSide, tmp_path: Path):
    write_shard(tmp_path, 24)
    ids = []
    for rank in range(2):
        source = ShardSource(str(tmp_path / "few-*.tar"))
        assert len(source.shards) == 1
        loaded = list(batch_loader(batches(source, text, rank, 2), 0, 6, workers=3))
        assert len(loaded) == 6
        ids += [torch.div(batch["images"].tensors["sample_ids"], ROWS_PER_RECORD, rounding_mode="floor") for batch in loaded]
    assert sorted(torch.cat(ids).tolist()) == list(range(24))


def test_fewer_records_than_a_batch_are_read_evenly_epoch_after_epoch(text: TextSide, tmp_path: Path):
    write_shard(tmp_path, 3)
    parts = [list(batch_loader(batches(ShardSource(str(tmp_path / "few-*.tar")), text, rank, 2, batch=8), 0, 6, 1)) for rank in range(2)]
    ids = torch.cat([batch["images"].tensors["sample_ids"] for step in zip(*parts, strict=True) for batch in step]) // ROWS_PER_RECORD
    assert [sorted(epoch.tolist()) for epoch in ids.view(16, 3)] == [[0, 1, 2]] * 16


def test_slow_reads_arrive_with_the_batch_from_a_worker(text: TextSide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_shard(tmp_path, 8)
    monkeypatch.setattr("dataset.storage.SLOW_RATE", 1e18)
    source = ShardSource(str(tmp_path / "few-*.tar"), storage=Storage(StorageSettings(slow_seconds=1e-12)))
    loaded = list(batch_loader(batches(source, text), 0, 2, 1))
    assert all({read.file for read in batch["images"].slow} == {str(tmp_path / "few-000000.tar")} for batch in loaded)
