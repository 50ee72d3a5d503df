"""Skipped records are counted by stream and cause, listed once, and stop the run beyond a share."""

import logging
from pathlib import Path

import pytest
import torch

from common.errors import UserError
from dataset.activity import SlowRead
from dataset.batches import Fault, StreamBatch
from engine.checkpoints import TrainState
from engine.faults import ENOUGH, SHOWN, FaultCounter, fault_numbers, fault_table

CPU = torch.device("cpu")


def batch(stream: str, seen: int, *faults: Fault, slow: tuple[SlowRead, ...] = ()) -> StreamBatch:
    return StreamBatch({}, stream, seen, faults, slow)


def faults_of(kind, count: int, start: int = 0) -> list[Fault]:
    return [Fault(kind, f"record {number} is damaged") for number in range(start, start + count)]


def test_counts_are_kept_by_stream_and_cause(tmp_path: Path):
    counter, state = FaultCounter(tmp_path / "bad.txt", 0.9, ["images", "regions"]), TrainState()
    counter.add([batch("images", 10, *faults_of("image", 2), *faults_of("shard", 1)), batch("regions", 5)])
    counter.add([batch("images", 10, *faults_of("annotation", 1)), batch("regions", 5, slow=(SlowRead("a.tar", 12.0),) * 2)])
    counter.settle(state, CPU)
    counter.settle(state, CPU)  # what was settled is not counted again
    assert fault_table(state) == {
        "images": {"read": 20, "image": 2, "annotation": 1, "shard": 1, "slow": 0},
        "regions": {"read": 10, "image": 0, "annotation": 0, "shard": 0, "slow": 2},
    }
    assert (state.seen, state.faults) == (30, 4)
    assert fault_numbers(state) == {"skipped_records": 4.0, "skipped/images": 4.0, "slow_reads/regions": 2.0}
    assert fault_numbers(TrainState()) == {}


def test_counts_go_on_from_a_state_of_before_they_were_kept(tmp_path: Path):
    counter, state = FaultCounter(tmp_path / "bad.txt", 0.9, ["images"]), TrainState(step=3, seen=100, faults=2)
    counter.add([batch("images", 10, *faults_of("image", 1))])
    counter.settle(state, CPU)
    assert (state.seen, state.faults, fault_table(state)["images"]["image"]) == (110, 3, 1)


def test_a_record_is_listed_once_whatever_comes_again_even_after_a_resume(tmp_path: Path):
    file = tmp_path / "bad.txt"
    for start in range(2):
        counter, state = FaultCounter(file, 0.9, ["images"]), TrainState()
        for _ in range(3):
            counter.add([batch("images", 10, Fault("image", "record 1:\nbroken"), Fault("shard", f"start {start}"))])
            counter.settle(state, CPU)
        assert state.faults == 6
        if start == 0:
            with file.open("a") as open_file:
                open_file.write("images | unreadable im")  # a kill cut a line short
    assert file.read_text().splitlines() == [
        "images | unreadable image | record 1: broken",
        "images | lost shard | start 0",
        "images | unreadable im",
        "images | lost shard | start 1",
    ]


def test_the_log_names_a_few_and_counts_the_rest(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    counter = FaultCounter(tmp_path / "bad.txt", 0.9, ["images"])
    slow = tuple(SlowRead(f"{number}.tar", 15.0) for number in range(5))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            counter.add([batch("images", 100, *faults_of("image", 50), slow=slow)])
            counter.settle(TrainState(), CPU)
    assert len(caplog.messages) == 2 * (SHOWN + 1)
    assert f"skipped: {50 - SHOWN} more, listed in" in caplog.text
    assert "slow storage: a read of 0.tar took 15.0 s" in caplog.text
    assert len((tmp_path / "bad.txt").read_text().splitlines()) == 50


def test_too_many_over_all_streams_stop_the_run_with_causes_and_an_example(tmp_path: Path):
    counter, state = FaultCounter(tmp_path / "bad.txt", 0.1, ["images", "regions"]), TrainState()
    counter.add([batch("images", 50, *faults_of("shard", 5)), batch("regions", 30, *faults_of("image", 4))])
    with pytest.raises(UserError) as caught:
        counter.settle(state, CPU)
    assert str(caught.value) == (
        "9 of 80 records read so far are unusable (4 unreadable image, 5 lost shard), more than engine.max_bad_share = 0.1 allows; "
        f"for example images | lost shard | record 0 is damaged. All are listed in {tmp_path / 'bad.txt'}."
    )


def test_one_stream_alone_stops_the_run_after_enough_records(tmp_path: Path):
    counter, state = FaultCounter(tmp_path / "bad.txt", 0.1, ["images", "regions"]), TrainState()
    counter.add([batch("images", 100 * ENOUGH), batch("regions", ENOUGH - 1, *faults_of("image", ENOUGH // 2))])
    counter.settle(state, CPU)  # not enough yet
    counter.add([batch("images", 100), batch("regions", 1, Fault("annotation", "the last"))])
    with pytest.raises(UserError, match=rf"^{ENOUGH // 2 + 1} of {ENOUGH} records of stream regions alone read so far .*the last"):
        counter.settle(state, CPU)
