"""What `run.py bench` writes, and how it answers mistakes."""

import json
from pathlib import Path

import pytest

from bench_request import bench_config
from engine.bench import command, peak
from engine.cli import main


@pytest.fixture(autouse=True)
def _small_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peak.SIZES, "cpu", 64)


def test_report_json_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, picture = tmp_path / "bench.json", tmp_path / "stages.svg"
    options = ["--steps", "2", "--warmup", "1", "--fixed-length", "12", "--stages", "--out", str(out), "--picture", str(picture)]
    assert main(["bench", "--config", str(bench_config(tmp_path)), *options]) == 0
    assert "samples/s" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert set(found) == {"schema", "measure", "title", "numbers", "notes", "environment"}
    assert (found["schema"], found["measure"]) == (1, "step")
    assert {"git", "command", "processor", "cpus", "gpus", "packages", "threads"} <= set(found["environment"])
    assert "<svg" in picture.read_text()
    assert sorted(item.name for item in tmp_path.iterdir()) == ["bench.json", "pretrain.yaml", "stages.svg"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--compare", "engine.precison=fp32,bf16"], "engine.precison is not a setting. Did you mean engine.precision?"),
        (["--compare", "engine.precision=fp32"], "--compare engine.precision=fp32: must be KEY=A,B with different values"),
        (["--compare", "optimizer.betas=[0.9, 0.98]"], "must be KEY=A,B with different values"),  # commas of a list do not count
        (["--stages", "rernk"], "--stages rernk: not a measure; it is one of step, load, rerank. Did you mean rerank?"),
        (["--picture", "x.svg"], "--picture: there are no stages of a step to draw; add --stages."),
        (["--out", "nowhere/bench.json"], "--out nowhere/bench.json: cannot be written: there is no folder nowhere."),
    ],
)
def test_mistakes_are_answered_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str) -> None:
    assert main(["bench", "--config", str(bench_config(tmp_path)), *options]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_measure_that_is_not_installed_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(command.MEASURES, "load", "engine.bench.absent:run")
    assert main(["bench", "--config", str(bench_config(tmp_path)), "--stages", "load"]) == 2
    assert "engine.bench.absent is not part of this installation" in capsys.readouterr().err
