"""Weights in several files beside an index are read as one file is."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import BertConfig, BertModel

from common.errors import UserError
from models.checkpoints.reading import read_checkpoint, read_shapes, read_state_dict


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


@pytest.fixture
def sharded(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """A model as transformers shards it, and its tensors."""
    settings = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    model = BertModel(settings)
    model.save_pretrained(tmp_path / "model", max_shard_size="10KB")
    return tmp_path / "model", dict(model.state_dict())


def test_a_sharded_model_of_hugging_face_is_read_from_its_folder_or_its_index(sharded: tuple[Path, dict[str, Tensor]]) -> None:
    folder, tensors = sharded
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 1
    for path in (folder, folder / "model.safetensors.index.json"):
        assert same(read_state_dict(path), tensors)
        shapes = read_shapes(path).tensors
        assert {name: tensor.shape for name, tensor in shapes.items()} == {name: tensor.shape for name, tensor in tensors.items()}
        assert all(tensor.is_meta for tensor in shapes.values())


def test_shards_may_be_torch_files(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "one.bin")
    torch.save({"b": torch.zeros(3), "more": torch.zeros(1)}, tmp_path / "two.bin")
    index = {"weight_map": {"a": "one.bin", "b": "two.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert same(read_state_dict(tmp_path), {"a": torch.ones(2), "b": torch.zeros(3)})


def test_a_folder_with_one_file_means_that_file(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors", metadata={"family": "mvp"})
    contents = read_checkpoint(tmp_path)
    assert same(contents.tensors, {"a": torch.ones(2)})
    assert contents.metadata == {"family": "mvp"}


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("{", "no index of weights"),
        ("[]", "no index of weights"),
        ("{}", "lacks weight_map"),
        ('{"weight_map": {}}', "names no tensors"),
        ('{"weight_map": {"a": 3}}', "no index of weights"),
        ('{"weight_map": {"a": "../shard.safetensors"}}', "not a file beside it"),
        ('{"weight_map": {"a": "m.index.json"}}', "names another index"),
        ('{"weight_map": {"a": "gone.safetensors"}}', "gone.safetensors: no such file"),
        ('{"weight_map": {"a": "shard.safetensors", "b": "shard.safetensors"}}', r"shard.safetensors: lacks b, which m.index.json"),
    ],
)
def test_a_damaged_index_is_named(tmp_path: Path, index: str, said: str) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "shard.safetensors")
    (tmp_path / "m.index.json").write_text(index)
    with pytest.raises(UserError, match=said) as caught:
        read_checkpoint(tmp_path / "m.index.json")
    assert "\n" not in str(caught.value)


def test_a_folder_with_two_sharded_models_asks_which(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors.index.json").write_text("{}")
    with pytest.raises(UserError, match=r"several sharded models, a\.safetensors\.index\.json, b"):
        read_checkpoint(tmp_path)
