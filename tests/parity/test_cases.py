"""This project computes what the official code computed, on every recorded case of a class that it has."""

import json
from pathlib import Path

import pytest

from parity.check import check_case, find_cases
from recorded import FIXTURES, GOLDEN

TASKS = ("retrieval", "bbox", "grounding", "captioning", "generation")
"""Parts of official modules of fine-tuning."""


def every_case() -> list[Path]:
    """The small cases, and where they are there the others."""
    cases = find_cases([FIXTURES])
    names = {case.name for case in cases}
    return cases + [case for case in (find_cases([GOLDEN]) if GOLDEN.is_dir() else []) if case.name not in names]


def is_task(folder: Path) -> bool:
    """Whether a case is of a fine-tuning class, which this project may not have yet."""
    file = folder / "config.json"
    if not file.is_file():
        return False
    recorded = json.loads(file.read_text())
    module = recorded["official_class"].rsplit(".", 1)[0]
    head = recorded["official_class"].rsplit(".", 1)[1]
    if "vqa" in recorded["official_class"].lower():
        return False
    return any(task in module for task in TASKS) or (recorded["repo"] == "mvp_pytorch" and not head.endswith("PreTraining"))


@pytest.mark.parametrize("folder", every_case(), ids=lambda folder: folder.name)
def test_every_recorded_tensor_is_met(folder: Path) -> None:
    report = check_case(folder)
    assert not report.problem
    assert [f"{failure.scenario}/{failure.name} {failure.dtype}" for failure in report.failures] == []
    if not is_task(folder):
        assert report.status == "passed"
        assert report.title == "functions" or not report.uncovered
