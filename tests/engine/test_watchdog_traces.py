"""What is recorded of a hang, and where."""

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest

from common.errors import UserError
from engine.checkpoints import CHECKPOINTS
from engine.config.engine_settings import EngineSettings
from engine.config.loader import load_config
from engine.provenance import record_run, refuse_other_run
from engine.watchdog import MARGIN, START_FACTOR, Limits
from engine.watchdog_traces import bounded, dump_stacks, record_collectives
from small_run import pretrain_settings, write_config

NAMES = (
    "TORCH_FR_BUFFER_SIZE",
    "TORCH_NCCL_TRACE_BUFFER_SIZE",
    "TORCH_FR_DUMP_TEMP_FILE",
    "TORCH_NCCL_DEBUG_INFO_TEMP_FILE",
    "TORCH_NCCL_DUMP_ON_TIMEOUT",
)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Of one of two processes, with nothing said about the flight recorder."""
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that what the code sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("WORLD_SIZE", "2")
    return monkeypatch


def test_collectives_are_recorded_under_the_runs_logs(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    record_collectives(tmp_path)
    assert os.environ["TORCH_FR_BUFFER_SIZE"] == "2000"
    assert os.environ["TORCH_NCCL_DUMP_ON_TIMEOUT"] == "1"
    target = Path(os.environ["TORCH_FR_DUMP_TEMP_FILE"])
    assert target.parent == tmp_path / "logs/flight-recorder"
    assert target.parent.is_dir()


def test_what_the_environment_says_about_the_flight_recorder_stays(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("TORCH_NCCL_TRACE_BUFFER_SIZE", "7")  # the older name
    environment.setenv("TORCH_NCCL_DUMP_ON_TIMEOUT", "0")
    record_collectives(tmp_path)
    assert "TORCH_FR_BUFFER_SIZE" not in os.environ
    assert os.environ["TORCH_NCCL_DUMP_ON_TIMEOUT"] == "0"


def test_one_process_has_no_collectives_to_record(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("WORLD_SIZE", "1")
    record_collectives(tmp_path)
    assert not any(name in os.environ for name in NAMES)
    assert not (tmp_path / "logs").exists()


def test_the_watchdog_speaks_before_a_collective_gives_up() -> None:
    limits = Limits.of(EngineSettings(stall_warning=10, timeout=100))
    assert limits.collective == timedelta(seconds=100 * START_FACTOR + MARGIN)


def test_a_timeout_below_the_warning_is_refused(small_data: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "config.yaml", pretrain_settings(small_data, 1))
    with pytest.raises(UserError, match=r"engine.timeout = 5 must be more than engine.stall_warning = 10\."):
        load_config(config, ["engine.stall_warning=10", "engine.timeout=5"], "pretrain")
    load_config(config, ["engine.stall_warning=10", "engine.timeout=0"], "pretrain")


def test_stacks_of_all_threads_are_added_under_a_title(tmp_path: Path) -> None:
    dump_stacks(tmp_path / "logs", 3, "first")
    text = dump_stacks(tmp_path / "logs", 3, "second").read_text()
    assert (tmp_path / "logs/stacks-rank-00003.txt").read_text() == text
    assert text.index("first") < text.index("test_stacks_of_all_threads") < text.index("second")


def test_recording_that_hangs_itself_is_left_behind() -> None:
    begun = time.monotonic()
    assert not bounded(lambda: time.sleep(30), 0.05)
    assert time.monotonic() - begun < 10
    assert bounded(lambda: None, 10)


def test_a_run_may_be_continued_with_other_limits(small_data: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "config.yaml", pretrain_settings(small_data, 1))
    record_run(tmp_path / "run", load_config(config, [], "pretrain"))
    (tmp_path / "run" / CHECKPOINTS).mkdir()
    other = load_config(config, ["engine.stall_warning=7", "engine.timeout=70"], "pretrain").config
    refuse_other_run(tmp_path / "run", other)
