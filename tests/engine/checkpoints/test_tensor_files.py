"""The safetensors files of checkpoints."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine.checkpoints import SavedTensors, tensor_files
from engine.checkpoints.tensor_files import DTYPES, write_tensors


def various() -> dict[str, torch.Tensor]:
    base = torch.arange(24).reshape(4, 6)
    every = {f"of {dtype}": (base % 2 == 0 if dtype is torch.bool else base.to(dtype)) for dtype in DTYPES}
    return every | {"scalar": torch.tensor(3.5), "nothing": torch.zeros(0, 3), "view": base.T[1:3], 'with " and é': base[0]}


def test_the_library_reads_what_was_written_to_the_last_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_files, "CHUNK", 7)  # smaller than a tensor
    entry = write_tensors(tmp_path / "file", various())
    content = (tmp_path / "file").read_bytes()
    assert (entry.size, entry.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    for found in (load_file(tmp_path / "file"), SavedTensors([tmp_path / "file"])):
        assert found.keys() == various().keys()
        for name, tensor in various().items():
            assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
            assert torch.equal(found[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))


def test_tensors_are_read_by_name_over_several_files_and_outlive_them(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a", {"one": torch.ones(2, 3)})
    write_tensors(tmp_path / "b", {"two": torch.full((4,), 2.0)})
    write_tensors(tmp_path / "c", {})
    saved = SavedTensors(tmp_path / name for name in "abc")
    assert (list(saved), saved.shape("one")) == (["one", "two"], (2, 3))
    one = saved["one"]
    one += 1
    assert saved["one"].tolist() == torch.ones(2, 3).tolist(), "the file is not changed by what is done to its tensors"
    with pytest.raises(ValueError, match="one is in two files"):
        SavedTensors([tmp_path / "a", tmp_path / "a"])
