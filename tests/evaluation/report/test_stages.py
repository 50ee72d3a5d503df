"""The bar of a step's stages in the report."""

import json
from pathlib import Path

import pytest

from evaluation.report import ReportPanels, write_report
from evaluation.report.stages import stage_svg

STAGES = {"vision": 3.0, "backward": 6.0, "other": 1.0}
HEADING = "Where the time of a step goes"


def test_report_shows_the_stages_where_the_run_folder_has_a_measurement(tmp_path: Path) -> None:
    assert HEADING not in write_report(tmp_path, ReportPanels()).read_text()
    (tmp_path / "bench.json").write_text(json.dumps({"numbers": {"stages": STAGES}}))
    page = write_report(tmp_path, ReportPanels()).read_text()
    assert HEADING in page
    assert "Share of a step&#39;s time: vision 30.0 %, backward 60.0 %, other 10.0 %." in page


def test_measurement_without_stages_is_said_in_the_log_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "bench.json").write_text(json.dumps({"numbers": {}}))
    assert HEADING not in write_report(tmp_path, ReportPanels()).read_text()
    assert "bench.json: has no stages to show" in caplog.text


def test_picture_names_every_stage() -> None:
    picture = stage_svg(STAGES)
    assert picture.startswith("<?xml")
    assert all(f"<!-- {name} " in picture for name in STAGES)
