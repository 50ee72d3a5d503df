"""Several ranks write one checkpoint without a collective, and agree on one that is good."""

import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from common.errors import UserError
from engine.board import LocalBoard
from engine.checkpoints import Checkpoint, CheckpointStore, TrainState, loading, writing
from engine.checkpoints.ranks import Patience
from played_ranks import PlayedRanks, quick, save_all, stores, tensors


def load_all(played: PlayedRanks, opened: list[CheckpointStore]) -> list[Checkpoint]:
    """What every rank loads."""
    loaded = played.play(lambda rank: opened[rank].load_latest())
    found = [checkpoint for checkpoint in loaded if checkpoint is not None]
    assert len(found) == played.world
    return found


def loaded_step(played: PlayedRanks, opened: list[CheckpointStore]) -> int:
    """The step that all ranks agree on."""
    loaded = load_all(played, opened)
    steps = {checkpoint.state.step for checkpoint in loaded}
    assert len(steps) == 1
    for checkpoint in loaded:
        model, moments = tensors(checkpoint.state.step)
        assert all(torch.equal(checkpoint.model[name], tensor) for name, tensor in model.items())
        assert all(torch.equal(checkpoint.optimizer[name], tensor) for name, tensor in moments.items())
        assert (len(checkpoint.model), len(checkpoint.optimizer)) == (len(model), len(moments))
    return steps.pop()


def test_what_four_ranks_wrote_is_read_by_one_and_what_one_wrote_by_three(tmp_path: Path) -> None:
    for step, world in enumerate((4, 1, 3, 9), start=1):  # nine ranks are more than there are tensors
        played = PlayedRanks(world)
        opened = stores(played, tmp_path)
        if step > 1:
            assert loaded_step(played, opened) == step - 1
        save_all(opened, step)
        assert [store.last_good for store in opened] == [step] * world
    played = PlayedRanks(2)
    assert loaded_step(played, stores(played, tmp_path)) == 4


def test_every_rank_writes_its_own_files_and_the_index_is_hugging_faces(tmp_path: Path) -> None:
    save_all(stores(PlayedRanks(3), tmp_path), 5)
    folder = tmp_path / "step-00000005"
    parts = [f"{kind}-0000{rank}-of-00003.safetensors" for kind in ("model", "optimizer") for rank in (1, 2, 3)]
    names = {*parts, "model.safetensors.index.json", "state.json"}
    assert {file.name for file in folder.iterdir()} == {*names, "manifest.json"}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["world"] == 3 and manifest["files"].keys() == names
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    model, _ = tensors(5)
    assert index["weight_map"].keys() == model.keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in model.values())
    for name, file in index["weight_map"].items():
        assert torch.equal(load_file(folder / file)[name], model[name])


def test_a_disk_that_fails_one_rank_is_told_by_all_and_leaves_the_last_checkpoint_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    played = PlayedRanks(3)
    opened = stores(played, tmp_path)
    save_all(opened, 1)
    real = writing.write_tensors

    def full(path: Path, content: Any) -> Any:
        entry = real(path, content)
        if "00003-of" in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return entry

    with monkeypatch.context() as patch:
        patch.setattr(writing, "write_tensors", full)
        save_all(opened, 2)
    said = (
        "checkpoint of step 2 could not be written (rank 2: No space left on device); the run goes on, the last good checkpoint is step 1"
    )
    assert caplog.messages.count(said) == 3
    assert sorted(item.name for item in tmp_path.iterdir()) == ["latest", "step-00000001"]
    assert loaded_step(played, opened) == 1
    save_all(opened, 2)
    assert loaded_step(played, opened) == 2


def test_rank_0_gives_up_on_a_rank_whose_writer_was_killed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    played = PlayedRanks(2)
    opened = stores(played, tmp_path)
    save_all(opened, 1)
    opened[0].limits = quick(answer=0.3)
    model, moments = tensors(2)
    opened[0].save(model, moments, TrainState(step=2))  # rank 1 never comes
    opened[0].wait()
    assert "checkpoint of step 2 could not be written (no answer of rank 1 within 0.3 s)" in caplog.text
    assert sorted(item.name for item in tmp_path.iterdir()) == ["latest", "step-00000001"]
    assert loaded_step(played, opened) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_writer_killed_after_it_began_leaves_the_last_checkpoint_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    played = PlayedRanks(2)
    opened = stores(played, tmp_path)
    save_all(opened, 1)
    real = writing.write_tensors

    def killed(path: Path, content: Any) -> Any:
        if "00002-of" in path.name:
            raise SystemExit  # ends the thread as nothing else does
        return real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(writing, "write_tensors", killed)
        opened[0].limits = quick(answer=0.3)
        save_all(opened, 2)
    opened[0].limits = quick()
    assert "could not be written (no answer of rank 1 within 0.3 s)" in caplog.text
    assert "could not be written (the writer ended early)" in caplog.text
    assert loaded_step(played, opened) == 1
    save_all(opened, 3)
    assert loaded_step(played, opened) == 3


def test_a_rank_that_comes_late_to_a_save_that_was_given_up_writes_nothing(tmp_path: Path) -> None:
    opened = stores(PlayedRanks(2), tmp_path, quick(answer=0.05))
    model, moments = tensors(1)
    for rank in (0, 1):
        opened[rank].save(model, moments, TrainState(step=1))
        opened[rank].wait()
    assert not tmp_path.exists() or not list(tmp_path.iterdir())
    assert [store.last_good for store in opened] == [None, None]


def test_shares_that_overlap_are_no_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    opened = stores(PlayedRanks(2), tmp_path)
    model, moments = tensors(1)
    for store in opened:
        store.save(model, moments, TrainState(step=1))
    for store in opened:
        store.wait()
    assert "several ranks bring layer0.weight" in caplog.text
    assert not list(tmp_path.glob("step-*"))


def test_a_folder_that_the_machines_do_not_share_is_no_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    played, board = PlayedRanks(2), LocalBoard()
    opened = [CheckpointStore(tmp_path / str(rank), 2, board, played.ranks(rank), limits=quick(listing=0.05)) for rank in range(2)]
    (tmp_path / "1").mkdir()
    save_all(opened, 1)
    assert "rank 0 does not see what rank 1 wrote, model-00002-of-00002.safetensors" in caplog.text
    assert not list(tmp_path.glob("*/step-*"))


def test_only_rank_0_tidies_up(tmp_path: Path) -> None:
    leftover = tmp_path / ".step-00000003.1.partial"
    leftover.mkdir()
    played = PlayedRanks(2)
    CheckpointStore(tmp_path, 2, LocalBoard(), played.ranks(1))
    assert leftover.exists()
    CheckpointStore(tmp_path, 2, LocalBoard(), played.ranks(0))
    assert not leftover.exists()


def stale_for(times: int, patch: pytest.MonkeyPatch) -> list[str]:
    """Ranks but the first do not see the files of step 2 so many times; lists what was asked for in vain."""
    asked: list[str] = []
    real = loading.is_there

    def is_there(file: Path, entry: Any) -> bool:
        if threading.current_thread().name != "rank-0" and file.parent.name == "step-00000002" and len(asked) < times:
            asked.append(file.name)
            return False
        return real(file, entry)

    patch.setattr(loading, "is_there", is_there)
    return asked


class FakeTime:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def patience(self, seconds: float) -> Patience:
        return Patience(seconds, lambda: self.now, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(("times", "expected"), [(5, 2), (10**6, 1)])
def test_a_stale_listing_is_asked_again_and_in_the_end_all_ranks_take_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, times: int, expected: int
) -> None:
    played = PlayedRanks(2)
    opened = stores(played, tmp_path)
    for step in (1, 2):
        save_all(opened, step)
    asked = stale_for(times, monkeypatch)
    for store in opened:
        store._loader.listing = FakeTime().patience(30)
    assert loaded_step(played, opened) == expected
    assert len(asked) >= 5
    assert ("rank 1: model-00001-of-00002.safetensors: not seen here" in caplog.text) == (expected == 1)


def test_the_choice_is_rank_0s_whatever_the_others_see(tmp_path: Path) -> None:
    played = PlayedRanks(2)
    opened = stores(played, tmp_path)
    for step in (1, 2):
        save_all(opened, step)
    # rank 1 looks into a copy whose pointer and listing are those of a moment ago
    behind = tmp_path / "behind"
    behind.mkdir()
    for step in (1, 2):
        (behind / f"step-0000000{step}").symlink_to(tmp_path / f"step-0000000{step}")
    (behind / "latest").write_text("step-00000001")
    opened[1]._loader.folder = behind
    assert loaded_step(played, opened) == 2


@pytest.mark.parametrize("part", range(1, 5))
def test_damage_that_one_rank_finds_makes_all_ranks_take_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, part: int
) -> None:
    played = PlayedRanks(4)
    opened = stores(played, tmp_path)
    for step in (1, 2):
        save_all(opened, step)
    file = tmp_path / f"step-00000002/optimizer-0000{part}-of-00004.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert loaded_step(played, opened) == 1
    assert f"{file.name}: its checksum is not that in manifest.json" in caplog.text


def test_all_ranks_stop_when_nothing_can_be_read(tmp_path: Path) -> None:
    played = PlayedRanks(3)
    opened = stores(played, tmp_path)
    save_all(opened, 1)
    (tmp_path / "step-00000001/manifest.json").write_text("{}")

    def load(rank: int) -> str:
        with pytest.raises(UserError) as caught:
            opened[rank].load_latest()
        return str(caught.value)

    said = played.play(load)
    assert len(set(said)) == 1 and "none of the 1 checkpoints can be read" in said[0]


def test_nothing_to_load_is_a_fresh_start_on_all_ranks(tmp_path: Path) -> None:
    played = PlayedRanks(3)
    opened = stores(played, tmp_path)
    assert played.play(lambda rank: opened[rank].load_latest()) == [None] * 3
