"""Folders of starts: kept, and pruned without touching what else is there."""

from pathlib import Path

from engine.launch.logs import KEPT_STARTS, RankLogs
from engine.launch.meeting import Attempt


def test_old_starts_are_pruned_and_the_new_one_and_other_files_stay(tmp_path: Path) -> None:
    root = tmp_path / "logs"
    for number in range(KEPT_STARTS + 4):
        (root / f"20260101-0000{number:02d}").mkdir(parents=True)
    others = [root / f"stacks-rank-{rank:05d}.txt" for rank in range(2 * KEPT_STARTS)]  # the watchdog's, of many ranks
    for other in others:
        other.write_text("stacks")
    (root / "flight-recorder").mkdir()
    new = RankLogs(tmp_path, tmp_path, lambda: Attempt(1, "20260102-000000"))._make(Attempt(1, "20260102-000000"), prune=True)
    assert new.is_dir()
    assert all(other.is_file() for other in others)
    assert (root / "flight-recorder").is_dir()
    assert sorted(entry.name for entry in root.glob("2026*"))[0] == "20260101-000005"
