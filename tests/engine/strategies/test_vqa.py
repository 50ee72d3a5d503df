"""A decoder beside the encoders is shared among ranks as they are."""

from pathlib import Path

import pytest

from small_run import curve, run, task_settings, without_dropout, write_config


@pytest.mark.slow
@pytest.mark.parametrize(
    "sets", [("--nproc", "2", "--set", "engine.strategy=fsdp"), ("--set", "engine.activation_checkpointing=true", "engine.accumulation=2")]
)
def test_questions_are_learned_alike_however_the_model_is_shared(small_data: Path, tmp_path: Path, sets: tuple[str, ...]) -> None:
    settings = without_dropout(task_settings("vqa", small_data, 2))
    settings["data"]["groups"] = 2
    config = write_config(tmp_path / "config.yaml", settings)
    for name, more in (("alone", ()), ("shared", sets)):
        done = run("vqa", config, tmp_path / name, *more)
        assert done.returncode == 0, done.stderr
    alone, shared = (curve(tmp_path / name) for name in ("alone", "shared"))
    for step, numbers in alone.items():
        assert shared[step]["train/answer"] == pytest.approx(numbers["train/answer"], rel=1e-5)
