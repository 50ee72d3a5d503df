"""Which file a path means."""

from pathlib import Path

import pytest
import torch

from common.errors import UserError
from engine.checkpoint import CheckpointStore, TrainState
from engine.weights import find_weights


def test_a_run_folder_means_its_best_weights_or_its_latest(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", keep=1)
    latest = store.save({"w": torch.zeros(1)}, {}, TrainState(step=3))
    assert find_weights(tmp_path) == latest / "model.safetensors"
    store.save_best({"w": torch.zeros(1)}, TrainState(step=2))
    assert find_weights(tmp_path) == tmp_path / "checkpoints/best/model.safetensors"
    with pytest.raises(UserError, match="neither a weights file"):
        find_weights(tmp_path / "elsewhere")
