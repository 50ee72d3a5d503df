"""Tables as they are printed, and runs as they are read."""

import json
from pathlib import Path

import pytest

from common.errors import UserError
from evaluation.tables import Table, markdown, metrics_table, plain_text, read_result, side_by_side, summarise

GROUNDING = {
    "task": "grounding",
    "metrics": {"accuracy": 86.37, "mean_iou": 0.7431},
    "baselines": {"mean box": {"accuracy": 4.2, "mean_iou": 0.11}, "largest object": {"accuracy": 27.9}},
    "best_step": 800,
}
RETRIEVAL = {"task": "retrieval", "metrics": {"tr_r1": 31.2}, "baselines": {"chance": {"tr_r1": 0.2}}, "best_step": None}


def run(folder: Path, content: object) -> Path:
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(content))
    return folder


def test_a_run_is_printed_with_its_baselines_beside_it(tmp_path: Path) -> None:
    table = metrics_table(read_result(run(tmp_path / "grounding", GROUNDING)))
    assert plain_text(table).splitlines() == [
        "metric                 value  mean box  largest object",
        "--------------------  ------  --------  --------------",
        "accuracy, IoU >= 0.5  86.4 %     4.2 %          27.9 %",
        "mean IoU               0.743     0.110               -",
    ]


def test_markdown_escapes_bars_and_aligns_numbers_right() -> None:
    table = Table(("name", "value"), (("a|b", "1.0"), ("c", "-")), (False, True))
    assert markdown(table).splitlines() == [
        "| name | value |",
        "| ---- | ----: |",
        "| a\\|b |   1.0 |",
        "| c    |     - |",
    ]


def test_summary_holds_unfinished_runs_as_dashes(tmp_path: Path) -> None:
    (tmp_path / "stopped").mkdir()
    folders = [run(tmp_path / "grounding", GROUNDING), run(tmp_path / "retrieval", RETRIEVAL), tmp_path / "stopped"]
    table = summarise(folders, metrics=["tr_r1", "accuracy"])
    assert table.columns == ("run", "task", "metric", "value", "mean box", "largest object", "chance", "best step")
    assert table.rows == (
        ("grounding", "grounding", "accuracy, IoU >= 0.5", "86.4 %", "4.2 %", "27.9 %", "-", "800"),
        ("retrieval", "retrieval", "TR R@1", "31.2 %", "-", "-", "0.2 %", "-"),
        ("stopped", *["-"] * 7),
    )
    assert len({len(line) for line in markdown(table).splitlines()}) == 1


def test_seeds_stand_side_by_side(tmp_path: Path) -> None:
    other = GROUNDING | {"metrics": {"accuracy": 84.0}}
    table = side_by_side({"seed 1": run(tmp_path / "a", GROUNDING), "seed 2": run(tmp_path / "b", other)})
    assert table.columns == ("metric", "seed 1", "seed 2", "mean box", "largest object")
    assert table.rows[0] == ("accuracy, IoU >= 0.5", "86.4 %", "84.0 %", "4.2 %", "27.9 %")
    assert table.rows[1] == ("mean IoU", "0.743", "-", "0.110", "-")


def test_metrics_nested_by_split_find_their_baseline(tmp_path: Path) -> None:
    nested = {"task": "retrieval", "metrics": {"test": {"tr_r1": 30.0, "note": "x"}}, "baselines": {"chance": {"tr_r1": 0.2}}}
    assert metrics_table(read_result(run(tmp_path / "r", nested))).rows == (("test TR R@1", "30.0 %", "0.2 %"),)


def test_small_numbers_do_not_round_to_nothing(tmp_path: Path) -> None:
    chance = {"task": "retrieval", "metrics": {"tr_r1": 0.0, "ir_r1": 0.02, "loss": float("nan")}}
    rows = metrics_table(read_result(run(tmp_path / "r", chance))).rows
    assert [row[1] for row in rows] == ["0.0 %", "0.02 %", "-"]


@pytest.mark.parametrize("content", [[], {"metrics": [1]}, {"task": "x"}, "no object"])
def test_a_file_of_another_form_is_named(tmp_path: Path, content: object) -> None:
    with pytest.raises(UserError, match=r"metrics\.json"):
        read_result(run(tmp_path / "r", content))
