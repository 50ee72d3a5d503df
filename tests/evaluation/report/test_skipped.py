"""The report's table of skipped records."""

import json
from pathlib import Path

from evaluation.report import ReportPanels, write_report
from evaluation.report.skipped import skipped_by_stream
from evaluation.tables import RunResult

STREAMS = {
    "images": {"read": 25600, "image": 12, "annotation": 0, "shard": 1000, "slow": 3},
    "regions": {"read": 0, "image": 0, "annotation": 0, "shard": 0, "slow": 0},
}
LINES = ["images | lost shard | a.tar: gone", *(f"images | unreadable image | record {number}" for number in range(9)), "an old line"]


def test_streams_have_their_counts_shares_and_examples() -> None:
    images, regions = skipped_by_stream(RunResult("run", streams=STREAMS), LINES)
    assert (images.read, images.causes, images.share, images.slow) == ("25,600", ("12", "0", "1,000"), "3.95%", "3")
    assert images.examples == ("lost shard: a.tar: gone", "unreadable image: record 0", "unreadable image: record 1")
    assert (regions.causes, regions.share, regions.examples) == (("0", "0", "0"), "-", ())
    assert skipped_by_stream(RunResult("old run"), LINES) == []


def test_the_report_shows_the_table_and_charts_counters_by_stream(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps({"metrics": {}, "records_skipped": 1012, "records_read": 25600, "streams": STREAMS}))
    (tmp_path / "bad_records.txt").write_text("\n".join(LINES))
    lines = [{"step": step, "kind": "train", "loss": 1.0, "images/itc": 1.0, "skipped/images": float(step)} for step in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    page = write_report(tmp_path, ReportPanels()).read_text()
    for shown in ("lost shard</th>", "3.95%", "1,000</td>", "a.tar: gone; unreadable image: record 0", "Skipped, by stream"):
        assert shown in page
