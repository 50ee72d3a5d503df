"""Foreign weights files are read without running anything they hold."""

import argparse
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import save_file
from torch import Tensor, nn

from common.errors import UserError
from models.checkpoints.reading import read_checkpoint, read_shapes, read_state_dict
from models.checkpoints.settings_pickle import read_settings_pickle

SETTINGS = """
# a comment that the reader keeps
train_file: [a.json, 'b.json']   # and another
image_res: 384
temp: 0.07
optimizer: {opt: adamW, lr: 1.0e-4, nested: [1, [2, 3]]}
use_swin: true
text: |
  two
  lines
nothing:
"""
PLAIN = {
    "train_file": ["a.json", "b.json"],
    "image_res": 384,
    "temp": 0.07,
    "optimizer": {"opt": "adamW", "lr": 1e-4, "nested": [1, [2, 3]]},
    "use_swin": True,
    "text": "two\nlines\n",
    "nothing": None,
}


class AttrDict(dict):
    """As research code writes it: its own attributes."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.__dict__ = self


class Payload:
    """Runs a shell command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    base = torch.randn(6, 4)
    return {"a.weight": base, "a.view": base.T[1:3], "half": torch.randn(3).half(), "index": torch.arange(5), "temp": torch.tensor(0.07)}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], expected[name]) and found[name].dtype == expected[name].dtype for name in found
    )


@pytest.mark.parametrize("wrapper", ["model", "module", "state_dict", None])
@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("ending", [".th", ".tar"])
def test_torch_files_of_every_kind_give_their_tensors(tmp_path: Path, wrapper: str | None, new_format: bool, ending: str) -> None:
    state = weights() if wrapper is None else {wrapper: weights(), "config": {"image_res": 224}, "epoch": 3}
    file = tmp_path / f"file{ending}"
    torch.save(state, file, _use_new_zipfile_serialization=new_format)
    contents = read_checkpoint(file)
    assert same(contents.tensors, weights())
    assert contents.config == ({} if wrapper is None else {"image_res": 224})
    shapes = read_shapes(file).tensors
    assert {name: tensor.shape for name, tensor in shapes.items()} == {name: tensor.shape for name, tensor in weights().items()}
    assert not new_format or all(tensor.is_meta for tensor in shapes.values())


def test_safetensors_are_known_by_their_content_and_only_their_header_is_read_for_shapes(tmp_path: Path) -> None:
    file = tmp_path / "file.bin"
    state = {name: tensor.contiguous() for name, tensor in weights().items()}
    save_file(state, file, metadata={"family": "xvlm"})
    contents = read_checkpoint(file)
    assert same(contents.tensors, state)
    assert contents.metadata == {"family": "xvlm"}
    assert {name: tensor.shape for name, tensor in read_shapes(file).tensors.items()} == {name: state[name].shape for name in state}


def test_weights_of_a_distributed_wrapper_and_parameters_lose_their_wrapping(tmp_path: Path) -> None:
    layer = nn.Linear(2, 3)
    torch.save({"model": {f"module.{name}": value for name, value in layer.named_parameters()}}, tmp_path / "file.pth")
    found = read_state_dict(tmp_path / "file.pth")
    assert same(found, dict(layer.state_dict()))
    assert not any(value.requires_grad for value in found.values())


@pytest.mark.parametrize("shapes_only", [False, True])
def test_settings_of_a_yaml_library_are_read_as_plain_containers(tmp_path: Path, shapes_only: bool) -> None:
    settings = YAML().load(SETTINGS)  # CommentedMap, CommentedSeq, ScalarFloat, comments with positions ...
    assert type(settings).__name__ == "CommentedMap"
    torch.save({"model": weights(), "config": settings}, tmp_path / "file.th")
    contents = (read_shapes if shapes_only else read_checkpoint)(tmp_path / "file.th")
    assert contents.config == PLAIN
    assert type(contents.config["temp"]) is float
    assert type(contents.config["train_file"]) is list
    if shapes_only:
        assert contents.tensors["a.view"].shape == (2, 6)
        assert contents.tensors["a.view"].is_meta
    else:
        assert same(contents.tensors, weights())


@pytest.mark.parametrize("settings", [AttrDict({"lr": 1e-4, "files": ["a"]}), argparse.Namespace(lr=1e-4, files=["a"])])
def test_attribute_dictionaries_and_namespaces_are_read_as_dictionaries(tmp_path: Path, settings: Any) -> None:
    torch.save({"model": weights(), "config": settings, "root": Path("/data/x")}, tmp_path / "file.th")
    contents = read_checkpoint(tmp_path / "file.th")
    assert contents.config == {"lr": 1e-4, "files": ["a"]}
    assert same(contents.tensors, weights())


def hostile(touched: Path) -> dict[str, Any]:
    command = Payload(f"touch {touched}")
    return {
        "alone": command,
        "among the weights": {"model": {**weights(), "extra": command}},
        "as settings": {"model": weights(), "config": command},
        "within settings of a library": {"model": weights(), "config": AttrDict({"inner": [command]})},
        "beside settings of a library": {"model": weights(), "config": YAML().load(SETTINGS), "x": command},
    }


@pytest.mark.parametrize("place", hostile(Path()))
@pytest.mark.parametrize("writer", ["zip", "legacy", "pickle"])
def test_a_pickle_that_would_run_a_command_is_refused_unrun(tmp_path: Path, place: str, writer: str) -> None:
    touched, file = tmp_path / "touched", tmp_path / "evil.th"
    value = hostile(touched)[place]
    if writer == "pickle":
        file.write_bytes(pickle.dumps(value, protocol=2))
    else:
        torch.save(value, file, _use_new_zipfile_serialization=writer == "zip")
    for read in (read_checkpoint, read_shapes):
        with pytest.raises(UserError, match=rf"{file}.*(holds more than tensors|damaged)") as caught:
            read(file)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError):  # the inner wall, without torch's before it
        read_settings_pickle(file, shapes_only=False)
    assert not touched.exists()
    pickle.loads(pickle.dumps(Payload(f"touch {touched}")))
    assert touched.exists(), "the payload does work where nothing stops it"


def archive_with(file: Path, instructions: bytes) -> None:
    """A torch file whose pickle is these instructions, preceded by an attribute dictionary that makes torch's own reader give up."""
    torch.save({"model": weights()}, file)
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    changed = {name: b"\x80\x02" + instructions if name.endswith("data.pkl") else data for name, data in entries.items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in changed.items():
            archive.writestr(name, data)
    file.write_bytes(buffer.getvalue())


@pytest.mark.parametrize(
    "instructions",
    [
        b"cargparse\nNamespace\n}X\x0c\x00\x00\x00__setstate__Nsb.",  # gives a stand-in class a state
        b"cargparse\nNamespace\n0ctorch._utils\n_rebuild_tensor_v2\n}X\x05\x00\x00\x00_callNsb.",  # changes what rebuilds tensors
        b"cargparse\nNamespace\n0X\x03\x00\x00\x00../Q.",  # refers to a file
        b"cargparse\nNamespace\n0cbuiltins\neval\nX\x01\x00\x00\x001\x85R.",
        b"cargparse\nNamespace\n0cmodels.checkpoints.reading\nread_checkpoint\n.",
    ],
)
def test_a_pickle_cannot_turn_the_stand_ins_against_the_reader(tmp_path: Path, instructions: bytes) -> None:
    archive_with(tmp_path / "file.th", instructions)
    with pytest.raises(UserError):
        read_checkpoint(tmp_path / "file.th")
    torch.save({"model": weights(), "config": argparse.Namespace(a=1)}, tmp_path / "good.th")
    contents = read_checkpoint(tmp_path / "good.th")
    assert contents.config == {"a": 1}
    assert same(contents.tensors, weights())


def test_files_cut_off_anywhere_are_named_as_damaged(tmp_path: Path) -> None:
    torch.save({"model": weights()}, tmp_path / "whole.th")
    torch.save({"model": weights()}, tmp_path / "legacy.th", _use_new_zipfile_serialization=False)
    save_file({"w": torch.zeros(100)}, tmp_path / "whole.safetensors")
    for name in ("whole.th", "legacy.th", "whole.safetensors"):
        whole = (tmp_path / name).read_bytes()
        for share in (0.1, 0.5, 0.9, 0.99):
            cut = tmp_path / f"cut-{name}"
            cut.write_bytes(whole[: int(len(whole) * share)])
            for read in (read_checkpoint, read_shapes):
                with pytest.raises(UserError, match=rf"{cut}: .*(damaged|cut off)"):
                    read(cut)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html>Google Drive - Virus scan warning", "begins like a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"\x00" * 257 + b"ustar" + b"\x00" * 300, "tar archive; unpack it"),
        (b"just some words", "neither like a safetensors nor like a torch file"),
    ],
)
def test_files_that_are_no_checkpoints_are_told_apart(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "file.th").write_bytes(content)
    with pytest.raises(UserError, match=f"not a checkpoint: .*{said}"):
        read_checkpoint(tmp_path / "file.th")


def test_files_without_tensors_and_missing_files_are_refused(tmp_path: Path) -> None:
    torch.save({"model": {"epoch": 3}}, tmp_path / "numbers.th")
    torch.save([1, 2], tmp_path / "list.th")
    (tmp_path / "other.zip").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    for name, said in {
        "numbers.th": "holds no tensors",
        "list.th": "it holds list",
        "other.zip": "no checkpoint",
        "none.th": "no such file",
    }.items():
        with pytest.raises(UserError, match=said):
            read_checkpoint(tmp_path / name)
    with pytest.raises(UserError, match="is a folder"):
        read_checkpoint(tmp_path)
