"""Checkpoints that survive a kill at any instant."""

from pathlib import Path

import pytest
import torch

from common import files
from common.errors import UserError
from engine import checkpoint
from engine.checkpoint import CheckpointStore, TrainState


def save(store: CheckpointStore, step: int) -> Path:
    return store.save({"w": torch.full((2,), float(step))}, {"w|step": torch.tensor(float(step))}, TrainState(step=step))


def test_the_newest_is_loaded_and_old_ones_are_removed(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    for step in (5, 10, 15):
        save(store, step)
    loaded = store.load_latest()
    assert loaded is not None
    assert loaded.state.step == 15
    assert loaded.model["w"].tolist() == [15, 15]
    assert sorted(folder.name for folder in tmp_path.glob("step-*")) == ["step-00000010", "step-00000015"]


@pytest.mark.parametrize("instant", range(8))
def test_a_kill_at_any_instant_of_saving_leaves_a_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instant: int) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    save(store, 1)
    count = 0

    class Killed(BaseException):
        pass

    def counted(call):
        def wrapper(*arguments, **named):
            nonlocal count
            if count == instant:
                raise Killed
            count += 1
            return call(*arguments, **named)

        return wrapper

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", counted(checkpoint.save_file))
        patch.setattr(checkpoint, "flush", counted(checkpoint.flush))
        patch.setattr(files, "flush", counted(files.flush))
        patch.setattr(Path, "rename", counted(Path.rename))
        patch.setattr(Path, "replace", counted(Path.replace))
        patch.setattr(Path, "write_bytes", counted(Path.write_bytes))
        patch.setattr(Path, "write_text", counted(Path.write_text))
        with pytest.raises(Killed):
            save(store, 2)
    loaded = store.load_latest()
    assert loaded is not None
    assert loaded.state.step in (1, 2)
    assert loaded.model["w"].tolist() == [loaded.state.step] * 2
    save(store, 3)  # leftovers are not in the way
    again = store.load_latest()
    assert again is not None
    assert again.state.step == 3


def test_an_unreadable_checkpoint_falls_back(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    save(store, 1)
    (save(store, 2) / "model.safetensors").write_bytes(b"torn")
    loaded = store.load_latest()
    assert loaded is not None
    assert loaded.state.step == 1


def test_nothing_readable_is_an_error_not_a_fresh_start(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    (save(store, 1) / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="none of the 1 checkpoints can be read"):
        store.load_latest()
    assert CheckpointStore(tmp_path / "empty", keep=2).load_latest() is None
