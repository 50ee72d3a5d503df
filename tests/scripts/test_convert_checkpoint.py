"""`scripts/convert_checkpoint.py` as users start it."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from models.checkpoints.converting import ours_to_official
from models.checkpoints.reading import Contents, read_checkpoint
from models.config import Beit2Config, FusionConfig, ModelConfig, TextConfig
from models.vlm import HEADS, VisionLanguageModel

SCRIPT = Path(__file__).parents[2] / "scripts" / "convert_checkpoint.py"


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """A pre-training file of X2-VLM's layout, heads of 64 channels, with settings beside the weights."""
    torch.manual_seed(0)
    vision = Beit2Config(image_size=32, patch_size=16, width=64, depth=1, heads=1)
    text = TextConfig(width=64, layers=1, heads=1, intermediate=32, vocab_size=30, max_positions=12)
    model = VisionLanguageModel(ModelConfig(vision=vision, text=text, fusion=FusionConfig(layers=1), projection_dim=4), HEADS)
    written = ours_to_official(Contents(dict(model.state_dict())), model.config, "model")
    torch.save({"model": written.tensors, "config": {"image_res": 32}}, tmp_path / "official.th")
    return tmp_path / "official.th"


def run(*arguments: object) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(SCRIPT), *(str(argument) for argument in arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(SCRIPT), run_name="__main__")
    return int(ended.value.code or 0)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_official_to_ours_and_back_gives_the_file_again(official: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(official, tmp_path / "ours.safetensors") == 0
    assert "renamed to ours" in capsys.readouterr().out
    assert run(tmp_path / "ours.safetensors", tmp_path / "back.th") == 0
    assert "second copies and buffers" in capsys.readouterr().out
    before, after = read_checkpoint(official), read_checkpoint(tmp_path / "back.th")
    assert same(before.tensors, after.tensors)
    assert after.config == {"image_res": 32}
    assert run(tmp_path / "ours.safetensors", tmp_path / "back.safetensors", "--to", "official") == 0
    assert same(before.tensors, read_checkpoint(tmp_path / "back.safetensors").tensors)
    assert not list(tmp_path.glob(".*partial"))


def test_weights_in_several_files_are_converted_as_one_file_is(official: Path, tmp_path: Path) -> None:
    tensors = {name: tensor.clone() for name, tensor in read_checkpoint(official).tensors.items()}
    folder, names = tmp_path / "sharded", sorted(tensors)
    folder.mkdir()
    places = {name: f"model-0000{number % 2 + 1}-of-00002.safetensors" for number, name in enumerate(names)}
    for file in set(places.values()):
        save_file({name: tensors[name] for name in names if places[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert run(official, tmp_path / "one.safetensors") == 0
    assert run(folder, tmp_path / "several.safetensors") == 0
    one, several = (read_checkpoint(tmp_path / f"{name}.safetensors").tensors for name in ("one", "several"))
    assert same(one, several)


def test_transformers_folder_holds_the_text_encoder_and_says_what_is_left_out(
    official: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(official, tmp_path / "hf", "--to", "hf") == 0
    said = capsys.readouterr().out
    assert (tmp_path / "hf/text/config.json").is_file()
    assert "vision: not written; transformers has no beit2" in said


def test_mistakes_are_one_line_and_leave_no_file(official: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "words.th").write_text("words")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    mistakes = {
        (official, official): "is the file to be read",
        (official, tmp_path / "out.th"): "name a file that ends in .safetensors",
        (official, tmp_path / "out.th", "--to", "official"): "is of the format x2vlm already",
        (tmp_path / "words.th", tmp_path / "out.safetensors"): "not a checkpoint",
        (tmp_path / "other.safetensors", tmp_path / "out.safetensors"): "none of the known formats",
        (tmp_path / "absent.th", tmp_path / "out.safetensors"): "neither a weights file",
    }
    for arguments, said in mistakes.items():
        assert run(*arguments) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out.th").exists()
    assert not (tmp_path / "out.safetensors").exists()
