"""scripts/check_parity.py: what it fails on, and what it leaves alone."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from recorded import FIXTURES

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_parity.py"
SMALLEST = "cclm_pretrain_tlm"


@pytest.fixture(scope="module")
def main() -> Callable[[list[str]], int]:
    spec = importlib.util.spec_from_file_location("check_parity", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """A copy of the smallest case, under another name."""
    return Path(shutil.copytree(FIXTURES / SMALLEST, tmp_path / "anything"))


def change_config(case: Path, change: Callable[[dict[str, Any]], None]) -> None:
    recorded = json.loads((case / "config.json").read_text())
    change(recorded)
    (case / "config.json").write_text(json.dumps(recorded))


def test_a_case_passes_under_any_name(main, case, capsys):
    assert main([str(case)]) == 0
    said = capsys.readouterr().out
    assert "anything" in said and "1 passed, 0 failed, 0 not covered" in said
    row = next(line for line in said.splitlines() if "mlm_logits" in line)
    assert 0 < float(row.split()[-2]) < 1e-4 and 0 < float(row.split()[-1]) < 1e-12


def test_a_weight_that_is_a_little_off_fails(main, case, capsys):
    weights = load_file(case / "weights.safetensors")
    weights["text_encoder.bert.encoder.layer.2.attention.self.query.weight"][0, 0] += 0.01
    save_file(weights, case / "weights.safetensors")
    assert main([str(case)]) == 1
    said = capsys.readouterr().out
    assert "FAILED para_text/mlm_logits" in said and "times its tolerance" in said


def test_an_output_that_is_not_computed_fails_by_name(main, case, capsys):
    for file in ("outputs.safetensors", "outputs_f64.safetensors"):
        outputs = load_file(case / file)
        outputs["para_text/attention_map"] = torch.zeros(2)
        save_file(outputs, case / file)
    assert main([str(case)]) == 1
    assert "FAILED para_text/attention_map float32: missing" in capsys.readouterr().out


def test_a_wrong_epsilon_fails_in_float64_alone(main, case, capsys):
    change_config(case, lambda recorded: recorded["config"]["dims"]["text"].update(layer_norm_eps=1.1e-5))
    assert main([str(case)]) == 1
    said = capsys.readouterr().out
    assert "FAILED para_text/text_embeds float64" in said
    assert "FAILED para_text/text_embeds float32" not in said


def test_a_gradient_that_is_off_fails(main, case, capsys):
    gradients = json.loads((case / "grads.json").read_text())
    gradients["para_text"]["f64"]["module_norm"]["text_proj"] *= 1.001
    (case / "grads.json").write_text(json.dumps(gradients))
    assert main([str(case)]) == 1
    assert "gradient of text_proj" in capsys.readouterr().out


def test_an_unknown_class_is_not_covered_and_does_not_fail(main, case, capsys):
    change_config(case, lambda recorded: recorded.update(official_class="models.model_dance.Dancer"))
    assert main([str(case)]) == 0
    assert "0 passed, 0 failed, 1 not covered" in capsys.readouterr().out


def test_a_broken_case_fails_and_the_next_is_still_compared(main, case, capsys):
    broken = Path(shutil.copytree(case, case.parent / "a_broken_one"))
    (broken / "weights.safetensors").unlink()
    assert main([str(case.parent)]) == 1
    assert "1 passed, 1 failed" in capsys.readouterr().out


def test_a_wrong_example_of_a_function_fails(main, tmp_path, capsys):
    case = Path(shutil.copytree(FIXTURES / "functions_x2vlm", tmp_path / "case"))
    recorded = json.loads((case / "functions.json").read_text())
    recorded["pre_caption"][0]["out"] = "another text"
    recorded["lr"][0]["factor_at_step"][3] += 0.001
    recorded["never_heard_of"] = [{"in": 1, "out": 2}]
    (case / "functions.json").write_text(json.dumps(recorded))
    mapping = json.loads((case / "checkpoint_mapping.json").read_text())
    mapping["XVLM->XVLMForRetrieval"]["map"]["itm_head.0.bias"] = ["bbox_head.0.bias"]
    (case / "checkpoint_mapping.json").write_text(json.dumps(mapping))
    tensors = load_file(case / "tensors.safetensors")
    tensors["beit_relpos/7to12/dst"][0, 0] += 1e-4
    save_file(tensors, case / "tensors.safetensors")
    assert main([str(case)]) == 1
    said = capsys.readouterr().out
    failed = {line.split("FAILED ")[1].split(":")[0].split(" float32")[0] for line in said.splitlines() if "FAILED" in line}
    assert failed == {"functions/pre_caption", "functions/lr", "checkpoints/XVLM->XVLMForRetrieval", "functions/beit_relpos"}
    assert "not covered: never_heard_of" in said


def test_a_path_without_a_case_is_a_wrong_argument(main, tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "no recorded case" in capsys.readouterr().err


def test_verbose_shows_each_parameter(main, case, capsys):
    assert main([str(case), "--verbose"]) == 0
    assert "gradient of text_proj.weight" in capsys.readouterr().out


def test_help_says_how_to_record_a_case(main, capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    assert all(word in said for word in ("weights.safetensors", "outputs_f64.safetensors", "grads.json", "eval()", "argmax"))
