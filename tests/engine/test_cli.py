"""What run.py's commands print, and how they answer mistakes."""

import subprocess
import sys
from pathlib import Path

import pytest

from engine.cli import main
from engine.config.loader import load_config
from tests.support.launching import fake_task


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "configs" / "pretrain"
    folder.mkdir(parents=True)
    (folder / "small.yaml").write_text("\n#\n# A small recipe.\n# More about it.\ntask: pretrain\n")
    (folder / "silent.yaml").write_text("task: pretrain\n")
    return tmp_path


def test_list_shows_tasks_and_recipes_with_one_line_each(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"], root=project) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["pretrain", "retrieval", "grounding"]
    assert lines[-1].split(maxsplit=1) == ["configs/pretrain/small.yaml", "A small recipe."]
    assert lines[-2].split() == ["configs/pretrain/silent.yaml"]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            ["lst"],
            "run.py: lst is not a command; it is one of config, validate, bench, plan, schema, sbatch, report, list. Did you mean list?",
        ),
        (["--task", "pretrian", "--config", "c", "--output_dir", "o"], "Did you mean pretrain?"),
        (["--task", "pretrain", "--confg", "c", "--output_dir", "o"], "run.py: --confg is not an option. Did you mean --config?"),
        (["--task", "pretrain", "--config", "smal.yaml", "--output_dir", "o"], "--config smal.yaml: no such file."),
        (["config", "--config", "small.yaml"], "--config small.yaml: no such file. Did you mean configs/pretrain/small.yaml?"),
        (["--task", "pretrain", "--config", "."], "run.py: the following arguments are required: --output_dir."),
        (["--task", "pretrain", "--config", ".", "--output_dir", "o"], "--config .: is a folder."),
    ],
)
def test_mistakes_are_answered_with_one_line_and_exit_2(
    project: Path, capsys: pytest.CaptureFixture[str], command: list[str], said: str
) -> None:
    assert main(command, root=project) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_config_prints_what_can_be_loaded_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, command = fake_task(tmp_path)
    assert main(["config", "--config", command[3], "--set", "seed=5", "report.samples=3", "--set", "engine.workers=0"]) == 0
    again = tmp_path / "again.yaml"
    again.write_text(capsys.readouterr().out)
    config = load_config(again).config
    assert (config.seed, config.report.samples, config.engine.workers) == (5, 3, 0)


def test_number_of_processes_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks, command = fake_task(tmp_path)
    assert main([*command, "--nproc", "0"], tasks) == 2
    assert "--nproc 0: must be at least 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_help_and_list_do_not_wait_for_slow_libraries() -> None:
    code = (
        "import sys; from engine.cli import main; main(['list']); sys.exit(bool({'torch', 'pydantic', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2], capture_output=True).returncode == 0
