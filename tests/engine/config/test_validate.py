"""What `run.py validate` finds before a run starts."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from common.errors import UserError
from dataset.shapeworld import write_shapeworld
from engine.cli import main
from engine.config.loader import load_config
from engine.config.validate import validate_run

ROOT = Path(__file__).parents[3]
Validate = Callable[..., list[str]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_shapeworld(folder, seed=1, train=24, validation=4, test=4)
    return folder


@pytest.fixture
def validate(data: Path) -> Validate:
    def check(task: str, *overrides: str, world: int = 1) -> list[str]:
        recipe = ROOT / "configs" / "quickstart" / f"{task}.yaml"
        return validate_run(load_config(recipe, [f"variables.data={data}", "initialize.checkpoint=null", *overrides], task).config, world)

    return check


def problem(check: Validate, *arguments: str, world: int = 1) -> str:
    with pytest.raises(UserError) as caught:
        check(*arguments, world=world)
    return str(caught.value)


@pytest.mark.parametrize("task", ["pretrain", "retrieval", "grounding"])
def test_good_config_is_summed_up(validate: Validate, task: str) -> None:
    lines = "\n".join(validate(task))
    assert "parameters" in lines
    assert ("streams.images: 24 records" if task == "pretrain" else "data: ") in lines
    assert ("evaluation.grounding: " if task == "pretrain" else "data.test: ") in lines


def test_missing_shards_and_misfits_are_all_listed(validate: Validate) -> None:
    overrides = ["streams.images.shards=nowhere/x-*.tar", "model.text.vocab_size=100", "evaluation.retrieval.file=nowhere.json"]
    lines = problem(validate, "pretrain", *overrides).splitlines()
    assert any("nowhere/x-*.tar" in line for line in lines)
    assert any("nowhere.json does not exist" in line for line in lines)
    assert any(line.startswith("model.text.vocab_size is 100, but the tokenizer in ") for line in lines)


def test_truncated_shard_is_named(validate: Validate, data: Path, tmp_path: Path) -> None:
    whole = next((data / "shards").glob("images-*.tar"))
    cut = tmp_path / whole.name
    cut.write_bytes(whole.read_bytes()[:5000])
    assert str(cut) in problem(validate, "pretrain", f"streams.images.shards={cut}")


def test_batch_that_cannot_be_split_names_the_key(validate: Validate) -> None:
    assert "streams.regions.batch_size = 63" in problem(validate, "pretrain", "streams.regions.batch_size=63", world=2)


def test_fewer_records_than_a_step_takes_are_a_warning_and_no_problem(validate: Validate) -> None:
    enough, few = (validate("pretrain", f"streams.images.batch_size={size}", "schedule.warmup_steps=0.1") for size in (24, 32))
    assert not any(line.strip().startswith("streams.images: warning") for line in enough)
    assert "  streams.images: warning: a step takes more images than there are records, so that some come twice in a step" in few


def test_source_without_one_usable_record_is_refused(validate: Validate) -> None:
    assert "streams.images: none of 8 records tried can be used" in problem(validate, "pretrain", "streams.images.caption_key=captoin")


def test_texts_longer_than_the_text_encoder_takes_are_refused(validate: Validate) -> None:
    assert "model.text.max_positions: 64, room for texts of 64 tokens" in problem(validate, "pretrain", "tokenizer.max_tokens=65")


def test_warmup_longer_than_the_run_is_refused(validate: Validate) -> None:
    said = problem(validate, "pretrain", "schedule={steps: null, epochs: 1, warmup_steps: 99}")
    assert "schedule.warmup_steps is 99, but the run has only " in said


def test_checkpoint_of_another_shape_names_a_tensor_and_both_shapes(validate: Validate, tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    save_file({"vision.backbone.patch_embed.proj.bias": torch.zeros(7)}, file)
    said = problem(validate, "retrieval", f"initialize.checkpoint={file}")
    assert str(file) in said
    assert "vision.backbone.patch_embed.proj.bias: [7] in the file, [96] in the model" in said


def test_checkpoint_that_lacks_tensors_passes_only_where_the_config_allows_it(validate: Validate, tmp_path: Path) -> None:
    file = tmp_path / "part.safetensors"
    save_file({"vision.backbone.patch_embed.proj.bias": torch.zeros(96)}, file)
    assert "initialize.allow_missing" in problem(validate, "retrieval", f"initialize.checkpoint={file}")
    lines = validate("retrieval", f"initialize.checkpoint={file}", "initialize.allow_missing=['*']")
    assert any("part.safetensors: 1 tensors loaded" in line for line in lines)
    assert any("fusion: " in line and "newly initialised" in line for line in lines)
    whole = file.read_bytes()
    for content, said in ((b"words", "not a checkpoint"), (whole[:-9], "not a readable safetensors file, it is damaged or cut off")):
        file.write_bytes(content)
        assert f"{file}: {said}" in problem(validate, "retrieval", f"initialize.checkpoint={file}")


def test_command_prints_the_summary_and_fails_on_problems(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["validate", "--config", str(ROOT / "configs" / "quickstart" / "pretrain.yaml"), "--set", f"variables.data={data}"]
    assert main(command) == 0
    assert capsys.readouterr().out.startswith("pretrain: ready to run with 1 process.\n")
    assert main([*command, f"variables.data={data}/nowhere"]) == 2
    assert "Traceback" not in capsys.readouterr().err
