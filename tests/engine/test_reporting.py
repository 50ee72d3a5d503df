"""What `run.py report` gathers from run folders."""

import json
from pathlib import Path

import pytest

from engine.cli import main

ROOT = Path(__file__).parents[2]
PUBLISHED = {"paper": "cclm", "model": "cclm-4m", "data": "4m", "task": "iglue_zero_shot", "metrics": {"xvnli": "mean/acc"}}


def finished(folder: Path, published: dict[str, object] | None) -> Path:
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps({"task": "classification", "metrics": {"acc": 75.0, "mean/acc": 70.0}}))
    settings = {"seed": 3, "initialize": {"checkpoint": "cclm.th"}, "report": {"samples": 8, "published": published}}
    (folder / "config.yaml").write_text(json.dumps(settings))
    environment = {"git": {"commit": "0123456789abcdef", "changed": True}, "command": ["run.py", "--task", "t", "--config", "xvnli.yaml"]}
    (folder / "environment.json").write_text(json.dumps(environment))
    return folder


def test_a_run_is_shown_beside_its_published_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(finished(tmp_path / "a", PUBLISHED)), str(finished(tmp_path / "b", None))], root=ROOT) == 0
    said = capsys.readouterr().out
    row = next(line.split() for line in said.splitlines() if "xvnli (test)" in line)
    expected = ["cclm-4m", "4m", "iglue_zero_shot", "xvnli", "(test)", "73.32?", "70.00", "-3.32", "cclm.th", "xvnli.yaml"]
    assert row == [*expected, "0123456789", "(changed)", "3"]
    assert "runs that repeat no published number" in said and str(tmp_path / "b") in said
    assert "unverified" in said


def test_folders_without_a_finished_run_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)], root=ROOT) == 2
    assert f"{tmp_path}: holds no finished run" in capsys.readouterr().err
    assert main(["report"], root=ROOT) == 2
    assert "name the folders of finished runs" in capsys.readouterr().err
    assert main(["report", "--all", "--markdown"], root=ROOT) == 0
    assert "| x-fm-base" in capsys.readouterr().out
