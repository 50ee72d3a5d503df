"""The metrics file over a resume."""

import json
from pathlib import Path

from engine.metrics import drop_after


def test_lines_of_steps_taken_again_and_torn_lines_are_dropped(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 3, 4)) + '{"step": 5, "lo')
    drop_after(file, 2)
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1, 2]
    drop_after(tmp_path / "absent.jsonl", 2)
