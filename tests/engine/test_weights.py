"""Loading trained weights, with a report."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from common.errors import UserError
from engine.checkpoint import CheckpointStore, TrainState
from engine.weights import find_weights, load_weights


def build() -> nn.ModuleDict:
    return nn.ModuleDict({"encoder": nn.Linear(3, 2), "head": nn.Linear(2, 1)})


def test_the_report_names_what_was_loaded_new_and_not_used(tmp_path: Path) -> None:
    model = build()
    weights = {"encoder.weight": torch.ones(2, 3), "encoder.bias": torch.ones(2), "old_head.bias": torch.ones(5)}
    save_file(weights, tmp_path / "w.safetensors")
    coverage = load_weights(model, tmp_path / "w.safetensors", ["head.*"])
    assert coverage.new == ("head.bias", "head.weight")
    assert str(coverage) == "loaded 2 tensors; newly initialised: head (2); not used: old_head (1)"
    assert model.get_parameter("encoder.weight").sum() == 6


def test_a_refused_file_changes_nothing(tmp_path: Path) -> None:
    model = build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    save_file({"encoder.weight": torch.ones(2, 3), "encoder.bias": torch.ones(7)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"encoder\.bias: \[7\] in the file, \[2\] in the model"):
        load_weights(model, tmp_path / "w.safetensors", ["*"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_run_folder_means_its_best_weights_or_its_latest(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", keep=1)
    latest = store.save({"w": torch.zeros(1)}, {}, TrainState(step=3))
    assert find_weights(tmp_path) == latest / "model.safetensors"
    store.save_best({"w": torch.zeros(1)}, TrainState(step=2))
    assert find_weights(tmp_path) == tmp_path / "checkpoints/best/model.safetensors"
    with pytest.raises(UserError, match="neither a weights file"):
        find_weights(tmp_path / "elsewhere")
