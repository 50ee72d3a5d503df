"""Which weights a path means."""

from pathlib import Path

import pytest
import torch

from common.errors import UserError
from engine.board import LocalBoard
from engine.checkpoints import CheckpointStore, Limits, TrainState
from engine.weights import find_weights
from models.checkpoints.reading import read_shapes, read_state_dict
from played_ranks import PlayedRanks, save_all, stores, tensors


def test_a_run_folder_means_its_best_weights_or_its_latest(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", 1, LocalBoard(), background=False, limits=Limits(spare=0))
    store.save({"w": torch.zeros(1)}, {}, TrainState(step=3))
    assert find_weights(tmp_path) == tmp_path / "checkpoints/step-00000003/model.safetensors"
    store.save_best({"w": torch.zeros(1)}, TrainState(step=2))
    assert find_weights(tmp_path) == tmp_path / "checkpoints/best/model.safetensors"
    with pytest.raises(UserError, match="neither a weights file"):
        find_weights(tmp_path / "elsewhere")


def test_what_several_ranks_wrote_is_found_and_read_as_one(tmp_path: Path) -> None:
    save_all(stores(PlayedRanks(3), tmp_path / "checkpoints"), 3)
    folder = tmp_path / "checkpoints/step-00000003"
    model, _ = tensors(3)
    for path in (tmp_path, folder):
        found = find_weights(path)
        assert found == folder / "model.safetensors.index.json"
        read = read_state_dict(found)
        assert read.keys() == model.keys()
        assert all(torch.equal(read[name], tensor) for name, tensor in model.items())
        assert {name: tensor.shape for name, tensor in read_shapes(found).tensors.items()} == {name: model[name].shape for name in model}
