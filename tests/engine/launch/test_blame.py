"""Which of several failures explains the others."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from engine.launch.blame import PATIENCE, Blame, Kind, blame_of, first, without_helped

LOST = "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [10.0.0.2]:2207"


def failure(folder: Path, rank: int, code: int, **words: Any) -> Blame:
    file = folder / f"rank-{rank}.json"
    if words:
        file.write_text(json.dumps(words))
    return blame_of(rank, ProcessFailure(rank, 1, code, str(file)), "node-b", {rank: folder / f"rank-{rank}.err"})


def test_rank_that_only_lost_its_peer_is_not_blamed(tmp_path: Path) -> None:
    noticed = failure(tmp_path, 0, 1, message=LOST, timestamp=100.0)
    own = failure(tmp_path, 3, 1, message="ValueError: no such colour\nand more", timestamp=101.0)
    assert first([noticed, own]).line() == (
        f"rank 3 on node-b failed first: ValueError: no such colour (exit code 1; full log: {tmp_path}/rank-3.err)"
    )
    assert "rank 0 on node-b lost a peer, which ended first: RuntimeError: " in noticed.line()


def test_data_source_that_resets_a_connection_is_no_lost_peer(tmp_path: Path) -> None:
    assert failure(tmp_path, 0, 1, message="ConnectionResetError: Connection reset by peer", timestamp=1.0).kind == Kind.OWN


def test_earlier_error_is_blamed(tmp_path: Path) -> None:
    blames = [failure(tmp_path, rank, 1, message="ValueError: x", timestamp=at) for rank, at in ((0, 100.9), (1, 100.2), (2, 100.5))]
    assert first(blames).rank == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGABRT])
def test_rank_that_was_ended_because_of_an_error_is_not_blamed(tmp_path: Path, number: signal.Signals) -> None:
    own = failure(tmp_path, 1, 1, message="ValueError: x", timestamp=100.0)
    assert first([failure(tmp_path, 0, -number), own]) == own


def test_bad_input_is_told_as_it_is(tmp_path: Path) -> None:
    bad = failure(tmp_path, 2, 2, message="data/x.tar: is truncated.", timestamp=200.0, user_error=True)
    told = first([failure(tmp_path, 0, -signal.SIGKILL), bad])
    assert (told.line(), told.code) == ("data/x.tar: is truncated.", 2)
    assert Blame.decode(told.encode()) == told


def test_killed_loader_process_is_told_as_it_is_but_may_be_tried_again(tmp_path: Path) -> None:
    killed = failure(tmp_path, 1, 1, message="a loader process of rank 1 was killed", timestamp=200.0, user_error=True)
    assert killed.kind == Kind.OWN
    assert "a loader process of rank 1 was killed" in killed.line()


def test_rank_that_the_launcher_had_to_kill_is_not_said_to_be_out_of_memory() -> None:
    lost = Blame(Kind.LOST_PEER, "RuntimeError: connection closed", 1, at=100.0, rank=0)
    helped = Blame(Kind.OWN, "killed by signal 9", 128 + signal.SIGKILL, at=100.0 + PATIENCE + 5, rank=1)
    own = Blame(Kind.OWN, "killed by signal 9", 128 + signal.SIGKILL, at=101.0, rank=2)
    assert first(without_helped([lost, helped])) == lost
    assert first(without_helped([lost, helped, own])) == own
