"""scripts/xfm_claims.py: what is finished becomes means and spreads; what is not is left open."""

import json
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


def finish(folder: Path, metrics: dict[str, object]) -> None:
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps({"task": "some", "metrics": metrics}))


def test_the_table_has_means_and_spreads_of_finished_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import xfm_claims  # pyright: ignore[reportMissingImports]

    for seed, value in ((1, 40.0), (2, 44.0)):
        folder = xfm_claims.cell(tmp_path, "both techniques", seed)
        finish(folder / "vqa", {"vqa_accuracy": value})
        finish(folder / "linear_probe", {"test": {"acc": value + 1}})
    monkeypatch.setattr(sys, "argv", ["xfm_claims.py", "--out", str(tmp_path), "--show", "--seeds", "1", "2", "3"])
    assert xfm_claims.main() == 0
    table = xfm_claims.claims_table(tmp_path, [1, 2, 3])
    cells = dict(zip((column.partition(",")[0] for column in table.columns), table.rows[0], strict=True))
    assert cells["vqa"] == "42.0 ± 2.8 %"
    assert cells["linear_probe"] == "43.0 ± 2.8 %"
    assert cells["acceptability"] == "-"
    assert cells["seeds"] == "0"
    assert "42.0 ± 2.8" in (tmp_path / "claims.md").read_text()


def test_a_missing_data_set_is_said_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import xfm_claims  # pyright: ignore[reportMissingImports]

    monkeypatch.setattr(sys, "argv", ["xfm_claims.py", "--out", str(tmp_path / "runs"), "--data", str(tmp_path / "none")])
    assert xfm_claims.main() == 2
    assert "no data set there" in capsys.readouterr().err
