"""Checkpoints that survive a kill at any instant and damage on the disk, written beside the training."""

import errno
import json
import logging
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from common.errors import UserError
from engine.board import LocalBoard
from engine.checkpoints import CheckpointStore, Limits, TrainState, check_space, layout, store, tensor_files, writing
from engine.checkpoints.ranks import Patience

LIMITS = Limits(listing=Patience(0), spare=0)


def open_store(folder: Path, keep: int = 2, background: bool = False) -> CheckpointStore:
    return CheckpointStore(folder, keep, LocalBoard(), background=background, limits=LIMITS)


def save(opened: CheckpointStore, step: int, width: int = 2) -> Path:
    opened.save({"w": torch.full((width,), float(step))}, {"w|step": torch.tensor(float(step))}, TrainState(step=step))
    return opened.folder / f"step-{step:08d}"


def loaded_step(opened: CheckpointStore) -> int:
    loaded = opened.load_latest()
    assert loaded is not None
    assert set(loaded.model["w"].tolist()) == {loaded.state.step}
    assert loaded.optimizer["w|step"] == loaded.state.step
    return loaded.state.step


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_the_newest_is_loaded_and_old_ones_are_removed(tmp_path: Path) -> None:
    opened = open_store(tmp_path)
    for step in (5, 10, 15):
        save(opened, step)
    assert loaded_step(opened) == 15
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["latest", "step-00000010", "step-00000015"]


def test_the_manifest_names_every_file_with_size_and_checksum(tmp_path: Path) -> None:
    folder = save(open_store(tmp_path), 5)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["step"], manifest["world"]) == (5, 1)
    assert set(manifest["files"]) == {"model.safetensors", "optimizer.safetensors", "state.json"}
    for name, entry in manifest["files"].items():
        assert entry == {"size": (folder / name).stat().st_size, "sha256": tensor_files.sha256_of(folder / name)}


METHODS = ("open", "mkdir", "rename", "replace", "write_bytes")


@pytest.fixture(autouse=True)
def quick_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """That the files survive a loss of power cannot be tested here; that they are flushed, and when, is counted all the same."""

    def fsync(handle: int) -> None:
        assert handle

    monkeypatch.setattr(os, "fsync", fsync)


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@contextmanager
def failing_from(instant: int, error: BaseException, *more: tuple[Any, str]) -> Iterator[list[str]]:
    """The system calls of a writer fail from the given one on; yields those that were made or tried."""
    tried: list[str] = []

    def counted(call: Any) -> Any:
        def wrapper(*arguments: Any, **named: Any) -> Any:
            tried.append(call.__name__)
            if len(tried) > instant:
                raise error
            return call(*arguments, **named)

        return wrapper

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in [(os, "fsync"), *((Path, name) for name in METHODS), *more]:
            patch.setattr(owner, name, counted(getattr(owner, name)))
        yield tried


@pytest.mark.parametrize(("keep", "again"), [(2, False), (1, False), (1, True)])
def test_a_kill_at_any_instant_of_saving_leaves_a_good_checkpoint(tmp_path: Path, keep: int, again: bool) -> None:
    step = 1 if again else 2  # the same step once more, as after falling back, takes the place of what is there
    for instant in range(100):
        folder = tmp_path / str(instant)
        opened = open_store(folder, keep)
        save(opened, 1)
        try:
            with failing_from(instant, Killed(), (shutil, "rmtree")) as made:
                save(opened, step)
        except Killed:
            restarted = open_store(folder, keep)
            assert loaded_step(restarted) in (1, step)
            save(restarted, 3)  # leftovers are not in the way
            assert loaded_step(restarted) == 3
            assert not [item for item in folder.iterdir() if item.name.startswith(".")]
        else:
            assert len(made) == instant, "it ended because there was nothing left to be killed at"
            assert {"open", "fsync", "rename", "replace", *(["rmtree"] if keep == 1 else [])} <= set(made)
            return
    pytest.fail("saving never came to its end")


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_flipped_byte_is_caught_by_the_checksum_and_the_one_before_is_loaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    opened = open_store(tmp_path)
    save(opened, 1)
    flip_a_byte(save(opened, 2) / name)
    assert loaded_step(opened) == 1
    assert f"step-00000002 cannot be read ({name}: its checksum is not that in manifest.json" in caplog.text


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["torn", "missing"])
def test_a_torn_or_missing_file_falls_back(tmp_path: Path, name: str, damage: str) -> None:
    opened = open_store(tmp_path)
    save(opened, 1)
    file = save(opened, 2) / name
    if damage == "torn":
        file.write_bytes(file.read_bytes()[:40])
    elif name != "manifest.json":  # without one it is as an older version wrote it
        file.unlink()
    else:
        return
    assert loaded_step(opened) == 1


def test_nothing_readable_is_an_error_not_a_fresh_start(tmp_path: Path) -> None:
    opened = open_store(tmp_path)
    (save(opened, 1) / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="none of the 1 checkpoints can be read"):
        opened.load_latest()
    assert open_store(tmp_path / "empty").load_latest() is None


@pytest.mark.parametrize("content", ["", "../elsewhere", "step-00000009", "\0"])
def test_a_pointer_that_names_no_checkpoint_is_not_followed(tmp_path: Path, content: str) -> None:
    opened = open_store(tmp_path)
    save(opened, 1)
    (tmp_path / "latest").write_text(content)
    assert loaded_step(opened) == 1


def test_checkpoints_of_older_versions_load_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    opened = open_store(tmp_path)
    folder = save(opened, 4)
    (folder / "manifest.json").unlink()
    (folder / "state.json").write_text('{"step": 4, "seen": 32}')  # entries that came later are at their defaults
    assert loaded_step(opened) == 4
    loaded = opened.load_latest()
    assert loaded is not None and loaded.state == TrainState(step=4, seen=32)
    assert "step-00000004: has no manifest.json" in caplog.text


def test_a_state_of_a_newer_version_is_an_error_that_names_what_is_unknown(tmp_path: Path) -> None:
    opened = open_store(tmp_path)
    save(opened, 1)
    folder = save(opened, 2)
    (folder / "manifest.json").unlink()
    (folder / "state.json").write_text('{"step": 2, "moons": 3}')
    with pytest.raises(UserError, match=r"step-00000002/state.json: moons: unknown here"):
        opened.load_latest()


def test_best_weights_are_kept_apart_and_damage_to_them_is_an_error(tmp_path: Path) -> None:
    opened = open_store(tmp_path)
    assert opened.load_best() is None
    for step in (3, 6):
        opened.save_best({"w": torch.full((2,), float(step))}, TrainState(step=step))
    best = opened.load_best()
    assert best is not None and best.state.step == 6 and dict(best.optimizer) == {}
    assert opened.load_latest() is None
    flip_a_byte(tmp_path / "best/model.safetensors")
    with pytest.raises(UserError, match="best: cannot be read"):
        opened.load_best()


def test_damaged_and_abandoned_checkpoints_do_not_take_the_place_of_good_ones(tmp_path: Path) -> None:
    opened = open_store(tmp_path, keep=2)
    for step in (10, 20):
        save(opened, step)
    flip_a_byte(tmp_path / "step-00000020/model.safetensors")
    restarted = open_store(tmp_path, keep=2)
    assert loaded_step(restarted) == 10
    save(restarted, 15)
    assert sorted(folder.name for folder in tmp_path.glob("step-*")) == ["step-00000010", "step-00000015"]


def test_at_least_the_newest_checkpoint_is_kept(tmp_path: Path) -> None:
    opened = open_store(tmp_path, keep=0)
    for step in (1, 2):
        save(opened, step)
    assert [folder.name for folder in tmp_path.glob("step-*")] == ["step-00000002"]


def test_a_deletion_that_fails_is_logged_and_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened = open_store(tmp_path, keep=1)
    save(opened, 1)

    def refuse(path: Path, **_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(layout.shutil, "rmtree", refuse)
        save(opened, 2)
    assert "step-00000001: cannot be removed (Permission denied)" in caplog.text
    assert loaded_step(opened) == 2
    assert loaded_step(open_store(tmp_path, keep=1)) == 2
    assert not list(tmp_path.glob(".*")), "the next start removes it"


class Gate:
    """Holds the writer until it is opened."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        real = writing.write_tensors

        def gated(path: Path, tensors: Any) -> tensor_files.FileEntry:
            self.reached.set()
            assert self.opened.wait(60)
            return real(path, tensors)

        patch.setattr(writing, "write_tensors", gated)


def test_training_goes_on_while_a_slow_disk_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    gate, opened = Gate(monkeypatch), open_store(tmp_path, background=True)
    save(opened, 1)
    assert gate.reached.wait(60)
    opened.poll()
    assert opened.last_good is None and not list(tmp_path.glob("step-*")), "nothing is there before all of it is"
    gate.opened.set()
    opened.wait()
    assert opened.last_good == 1
    assert "checkpoint of step 1 written" in caplog.text
    assert loaded_step(opened) == 1


def test_the_next_save_waits_for_the_one_before_and_says_how_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store, "WAIT_NOTICED", 0.0)
    gate, opened = Gate(monkeypatch), open_store(tmp_path, background=True)
    save(opened, 1)
    assert gate.reached.wait(60)
    threading.Timer(0.05, gate.opened.set).start()
    for step in (2, 3, 4):
        save(opened, step)
        assert opened.last_good == step - 1
    opened.wait()
    assert sorted(folder.name for folder in tmp_path.glob("step-*")) == ["step-00000003", "step-00000004"]
    assert opened.waited >= 0.04
    assert caplog.text.count("training waited") == 1, "said once in a while, not at every save"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("no right to mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_fills_up_while_saving_leaves_the_run_alive_and_the_last_checkpoint_good(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writing, "check_space", lambda *_: None)  # there was room when it began
    opened = open_store(small_disk / "checkpoints", background=True)
    width = 50_000  # 200 kB
    save(opened, 1, width)
    opened.wait()
    filler = small_disk / "filler"
    filler.write_bytes(b"\0" * 700_000)
    for _ in range(2):
        save(opened, 2, width)
        opened.wait()
        assert loaded_step(opened) == 1
    said = "checkpoint of step 2 could not be written (rank 0: No space left on device); the run goes on, the last good checkpoint is "
    assert caplog.messages.count(f"{said}step 1") == 2
    assert sorted(item.name for item in (small_disk / "checkpoints").iterdir()) == ["latest", "step-00000001"]
    filler.unlink()
    save(opened, 3, width)
    opened.wait()
    assert loaded_step(opened) == 3


def test_an_error_of_the_disk_at_any_instant_leaves_the_run_alive_and_a_good_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for instant in range(100):
        opened = open_store(tmp_path / str(instant), background=True)
        save(opened, 1)
        opened.wait()
        caplog.clear()
        with failing_from(instant, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) as tried:
            save(opened, 2)
            opened.wait()
        assert loaded_step(opened) in (1, 2)
        if len(tried) <= instant:
            assert opened.last_good == 2
            return
        assert "checkpoint of step 2 could not be written" in caplog.text
        assert "No space left on device" in caplog.text
        save(opened, 3)
        opened.wait()
        assert loaded_step(opened) == 3
    pytest.fail("saving never came to its end")


def test_a_disk_without_room_is_noticed_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened = open_store(tmp_path / "checkpoints")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=3999))
    save(opened, 1, width=1000)
    assert "checkpoint of step 1 could not be written (no space: it takes 4.0 kB, and" in caplog.text
    assert "there is no good checkpoint yet" in caplog.text
    assert not (tmp_path / "checkpoints").exists()
    assert check_space(tmp_path / "not/yet/there", 4000) is not None
    assert check_space(tmp_path / "not/yet/there", 3999) is None
    assert check_space(tmp_path, 3000, spare=1000) is not None
