"""Published numbers, and runs beside them."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from common.errors import UserError
from evaluation.published import FinishedRun, PublishedNumber, comparison, other_runs, read_published

ROOT = Path(__file__).parents[2]
SOURCES = {"paper", "readme", "index", "unverified"}
NUMBER = PublishedNumber("x-vlm", "x-vlm-base", "4m", "nlvr2", "dev/test-P", "test", 84.21, "readme")
RUN = FinishedRun(
    "runs/a", {"acc": 83.5, "consistency": 40.0}, "x-vlm", "x-vlm-base", "4m", "nlvr2", {"test": "acc"}, "16m.th", "c.yaml", "0a", "1"
)


def test_every_paper_is_there_and_every_number_has_a_source() -> None:
    papers = read_published(ROOT / "configs/published")
    assert set(papers) == {"x-vlm", "x2-vlm", "cclm", "x-fm", "mvp"}
    numbers = [number for _, found in papers.values() for number in found]
    assert len(numbers) > 200
    assert {number.source for number in numbers} == SOURCES
    assert next(number for number in numbers if number == NUMBER).shown == "84.21"


def test_every_recipe_that_repeats_a_number_names_one_that_is_published() -> None:
    numbers = [number for _, found in read_published(ROOT / "configs/published").values() for number in found]
    named = 0
    for file in (ROOT / "configs/finetune").rglob("*.yaml"):
        row = (YAML(typ="safe").load(file.read_text(encoding="utf-8")).get("report") or {}).get("published")
        if row is not None:
            run = FinishedRun("", {}, row["paper"], row["model"], row["data"], row["task"], row.get("metrics", {}))
            repeated = {number.metric for number in numbers if run.repeats(number)}
            assert repeated and run.names.keys() <= repeated, file
            named += 1
    assert named >= 7


def test_a_run_stands_beside_what_it_repeats_with_the_difference() -> None:
    table = comparison([NUMBER], [RUN, FinishedRun("runs/b", {"acc": 1.0})])
    assert table.rows == (("x-vlm-base", "4m", "nlvr2", "test (dev/test-P)", "84.21", "83.50", "-0.71", "16m.th", "c.yaml", "0a", "1"),)


def test_numbers_that_nobody_repeats_are_shown_on_request_and_unverified_ones_marked() -> None:
    remembered = PublishedNumber("x-vlm", "x-vlm-base", "16m", "nlvr2", "test", "test", 80.0, "unverified")
    assert comparison([remembered], [RUN]).rows == ()
    (row,) = comparison([remembered], [RUN], everything=True).rows
    assert row[4:7] == ("80.00?", "-", "-")


def test_runs_without_a_published_counterpart_are_listed_apart() -> None:
    other = FinishedRun("runs/b", {"acc": 78.1}, seed="2")
    assert other_runs([RUN, other], [NUMBER]).rows == (("runs/b", "acc", "78.10", "-", "-", "-", "2"),)


def test_a_file_of_another_form_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("rows: 1\n")
    with pytest.raises(UserError, match=r"x.yaml: not a file of published numbers"):
        read_published(tmp_path)
