"""Who is named when ranks hang: several watchdogs over one board, with a clock of their own."""

import json
import logging
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from torch import nn

from engine.board import LocalBoard
from engine.config.engine_settings import EngineSettings
from engine.launch.outcome import ERROR_FILE
from engine.watchdog import START_FACTOR, Limits, Watchdog
from engine.watchdog_heartbeat import Heartbeat, Phase, who_holds_up
from engine.watchdog_traces import EXIT_STALLED

LIMITS = Limits(warning=120.0, timeout=1800.0)


class Ranks:
    """The watchdogs of all ranks of a run, in one process."""

    def __init__(self, world: int, folder: Path, limits: Limits = LIMITS) -> None:
        self.now = 0.0
        self.board = LocalBoard()
        self.exits: dict[int, int] = {}
        self.stopped: set[int] = set()
        self.dogs = [
            Watchdog(self.board, rank, world, limits, folder / "logs", end=self._end(rank), clock=lambda: self.now) for rank in range(world)
        ]
        for dog in self.dogs:
            dog._host = f"host-{'ab'[dog.rank // 2]}"

    def _end(self, rank: int):
        return lambda code: self.exits.setdefault(rank, code)

    def train(self, steps: int) -> None:
        """All ranks finish these steps and begin the next one."""
        for step in range(1, steps + 1):
            for dog in self.dogs:
                dog.finished(step)
                dog.enter(Phase.LOADING)
                dog.enter(Phase.TRAINING)
        self.wait(5)

    def wait(self, seconds: float) -> None:
        """Time passes; the threads of all ranks that are not stopped look."""
        end = self.now + seconds
        while self.now < end:
            self.now += 5.0
            for dog in self.dogs:
                if dog.rank not in self.stopped and dog.rank not in self.exits:
                    dog.look()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Log lines so far."""

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    lines: list[str] = []
    handler = Lines()
    log = logging.getLogger("engine.watchdog")
    log.addHandler(handler)
    yield lines
    log.removeHandler(handler)


def about(lines: list[str], text: str) -> list[str]:
    return [line for line in lines if text in line]


def test_a_rank_that_waits_for_data_is_named_with_its_stalled_loader(tmp_path: Path, said: list[str]) -> None:
    ranks = Ranks(4, tmp_path)
    ranks.train(41)
    ranks.dogs[2].enter(Phase.LOADING)
    ranks.dogs[2].describe_loader = lambda: "loader worker 1 has been reading images-000003.tar for 120 s"
    ranks.wait(130)
    (line,) = about(said, "holds the others up")
    assert line.startswith("rank 2 on host-b (pid ")
    assert "last finished step 41, waiting for the data of step 42 for 1" in line
    assert "a stalled loader (loader worker 1 has been reading images-000003.tar for 120 s)" in line
    assert line.endswith("3 ranks wait for it, in training step 42")
    assert sorted(line.split(" on ")[0] for line in about(said, "no progress")) == [f"no progress: rank {rank}" for rank in range(4)]
    assert "waiting for the data of step 42" in (tmp_path / "logs/stacks-rank-00002.txt").read_text()


def test_a_rank_without_signs_of_life_is_named_with_what_it_last_did(tmp_path: Path, said: list[str]) -> None:
    ranks = Ranks(4, tmp_path)
    ranks.train(41)
    ranks.stopped.add(1)
    ranks.wait(130)
    (line,) = about(said, "no sign of life")
    assert line.startswith("rank 1 on host-a (pid ")
    assert "last finished step 41, last heard of in training step 42" in line
    assert line.endswith("the other 3 ranks are in training step 42")


def test_a_rank_that_never_came_is_named(tmp_path: Path, said: list[str]) -> None:
    ranks = Ranks(2, tmp_path)
    ranks.stopped.add(1)
    ranks.wait(START_FACTOR * 120 + 10)
    assert about(said, "rank 1 has never given a sign of life")


@pytest.mark.parametrize("gone", [{0}, {0, 1}])
def test_another_rank_speaks_when_the_first_is_gone(tmp_path: Path, said: list[str], gone: set[int]) -> None:
    ranks = Ranks(4, tmp_path)
    ranks.train(3)
    ranks.stopped |= gone
    ranks.wait(130)
    (line,) = about(said, "no sign of life")
    assert all(f"rank {rank} on " in line for rank in gone)


def test_ranks_that_all_wait_in_the_same_step_are_said_to_wait_for_one_another(tmp_path: Path, said: list[str]) -> None:
    ranks = Ranks(2, tmp_path)
    ranks.train(7)
    ranks.wait(130)
    assert about(said, "all 2 ranks are in training step 8: they wait for one another in a collective")


def test_a_rank_that_left_is_the_one_that_holds_the_others_up(tmp_path: Path, said: list[str]) -> None:
    ranks = Ranks(2, tmp_path)
    ranks.train(7)
    ranks.dogs[1].enter(Phase.LEFT)
    ranks.dogs[1].look()
    ranks.stopped.add(1)
    ranks.wait(130)
    assert about(said, "rank 1 on host-a")[0].endswith("1 rank waits for it, in training step 8")
    assert not about(said, "no sign of life")


def test_warnings_come_at_doubling_intervals_and_begin_anew_after_progress(tmp_path: Path, said: list[str]) -> None:
    ranks = Ranks(1, tmp_path)
    ranks.train(1)
    ranks.wait(1000)
    assert len(about(said, "no progress")) == 4  # after 120, 240, 480 and 960 s
    ranks.dogs[0].progress()
    ranks.wait(110)
    assert len(about(said, "no progress")) == 4
    ranks.wait(20)
    assert len(about(said, "no progress")) == 5
    assert ranks.exits == {}


def test_before_the_first_step_there_is_more_patience(tmp_path: Path, said: list[str]) -> None:
    ranks = Ranks(1, tmp_path)
    ranks.dogs[0].enter(Phase.TRAINING)
    ranks.wait(START_FACTOR * 120 - 10)
    assert said == []
    ranks.wait(20)
    assert len(about(said, "no progress")) == 1
    ranks.wait(START_FACTOR * 1800 - START_FACTOR * 120 - 100)
    assert ranks.exits == {}
    ranks.wait(200)
    assert ranks.exits == {0: EXIT_STALLED}


def test_after_the_time_out_every_rank_leaves_traces_before_any_ends(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ERROR_FILE, str(tmp_path / "error.json"))
    ranks = Ranks(4, tmp_path)
    ranks.train(41)
    ranks.wait(200)
    ranks.dogs[3].progress()  # its clock of idleness runs behind the others'
    ranks.dogs[3].enter(Phase.LOADING)
    while not about(said, "stalled, ending"):
        ranks.wait(5)
    assert ranks.exits == {}
    assert ranks.now == pytest.approx(1810, abs=10)
    ranks.wait(10)
    assert [path.name for path in sorted((tmp_path / "logs").glob("stalled-*"))] == [f"stalled-rank-0000{rank}.txt" for rank in range(4)]
    ranks.wait(15)
    assert ranks.exits == dict.fromkeys(range(4), EXIT_STALLED)
    # whichever rank's last words the launcher finds, they name the one at fault
    texts = [json.loads((tmp_path / "error.json").read_text())["message"]]
    texts += [(tmp_path / f"logs/stalled-rank-0000{rank}.txt").read_text() for rank in range(4)]
    for text in texts:
        assert "rank 3 on host-b" in text
        assert "last finished step 41, waiting for the data of step 42" in text


def test_a_board_that_does_not_answer_is_told_once_and_each_rank_watches_itself(tmp_path: Path, said: list[str]) -> None:
    ranks = Ranks(2, tmp_path)
    ranks.train(5)

    def broken(*_: str) -> None:
        raise RuntimeError("recvValue failed\nmore")

    ranks.board.post = broken  # pyright: ignore[reportAttributeAccessIssue]
    ranks.board.read = broken  # pyright: ignore[reportAttributeAccessIssue]
    ranks.wait(1900)
    assert len(about(said, "rank 1 cannot reach the other ranks' heartbeats any more")) == 1
    assert about(said, "no progress: rank 1 on host-a")
    assert ranks.exits == {0: EXIT_STALLED, 1: EXIT_STALLED}
    assert "rank 1 on host-a" in (tmp_path / "logs/stalled-rank-00001.txt").read_text()


def test_without_limits_nothing_watches(tmp_path: Path) -> None:
    limits = Limits.of(EngineSettings(stall_warning=0, timeout=None))
    assert limits.collective > timedelta(days=100)  # torch's own choice would be minutes
    with Watchdog(LocalBoard(), 0, 1, limits, tmp_path).watching(0):
        assert not any(thread.name == "watchdog" for thread in threading.enumerate())


def test_the_thread_lives_no_longer_than_what_it_watches(tmp_path: Path) -> None:
    dog = Watchdog(LocalBoard(), 0, 1, LIMITS, tmp_path)

    def fail() -> None:
        with dog.watching(0):
            assert any(thread.name == "watchdog" for thread in threading.enumerate())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not any(thread.name == "watchdog" for thread in threading.enumerate())


def test_a_process_that_was_stopped_as_a_whole_is_not_blamed_for_it(tmp_path: Path, said: list[str]) -> None:
    ranks = Ranks(1, tmp_path)
    ranks.train(1)
    ranks.now += 7200
    ranks.dogs[0]._excuse_standstill(7205)
    ranks.wait(100)
    assert about(said, "stood still for 7200 s")
    assert not about(said, "no progress")
    assert ranks.exits == {}


def test_an_evaluation_may_take_its_time_as_long_as_the_model_is_called(tmp_path: Path, said: list[str]) -> None:
    ranks = Ranks(1, tmp_path)
    ranks.train(1)
    model = nn.Sequential(nn.Identity())
    with ranks.dogs[0].evaluating(model):
        for _ in range(50):
            ranks.wait(100)
            model(0)
        assert said == []
        ranks.wait(130)
    assert about(said, "evaluating after step 1")
    assert ranks.dogs[0].phase_now is Phase.TRAINING
    assert not model[0]._forward_hooks


def test_a_loader_that_cannot_be_described_does_not_stop_the_watch(tmp_path: Path, said: list[str]) -> None:
    ranks = Ranks(1, tmp_path)
    ranks.train(1)
    ranks.dogs[0].enter(Phase.LOADING)
    ranks.dogs[0].describe_loader = lambda: str(1 / 0)
    ranks.wait(130)
    assert about(said, "a stalled loader (its state cannot be told: division by zero)")


def test_of_many_ranks_a_few_are_described(tmp_path: Path) -> None:
    heard = {rank: Heartbeat(rank, 1, 3 if rank < 900 else 4, Phase.LOADING, 9.0, "h", 1) for rank in range(1000)}
    text = who_holds_up(heard, dict.fromkeys(range(100), 60.0), 1000)
    assert len(text) < 1200
    assert "and 96 more" in text
    assert "800 ranks hold the others up" in text
    assert text.endswith("100 ranks wait for them, waiting for the data of step 5")


def test_heartbeats_come_back_from_the_board_as_they_were_posted() -> None:
    beat = Heartbeat(3, 7, 41, Phase.SAVING, 1.5, "host", 77, "x")
    assert Heartbeat.from_text(beat.to_text()) == beat
