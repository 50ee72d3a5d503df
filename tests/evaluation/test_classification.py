"""Accuracy and consistency of labels, and the files that benchmarks read."""

import json
from pathlib import Path

import pytest

from evaluation.classification import accuracy, consistency, majority, write_labels, write_statements


def test_accuracy_is_a_percentage_of_all_records() -> None:
    assert accuracy([1, 0, 1, 1], [1, 0, 0, 1]) == 75.0
    with pytest.raises(ValueError, match="0 predictions for 0 labels"):
        accuracy([], [])


def test_consistency_counts_sentences_that_are_right_on_all_their_pairs() -> None:
    assert consistency([1, 0, 1, 0], [1, 0, 0, 0], ["a", "a", "b", "c"]) == pytest.approx(200 / 3)
    assert consistency([1, 1, 1], [1, 1, 0], ["a", "a", "a"]) == 0.0


def test_the_majority_is_the_most_frequent_label_and_the_lowest_of_equals() -> None:
    assert majority([2, 1, 2]) == 2
    assert majority([2, 1, 1, 2]) == 1


def test_statements_are_written_as_nlvr2s_script_reads_them(tmp_path: Path) -> None:
    write_statements(tmp_path / "predictions/test.csv", ["dev-836-0-1", "a,b"], [1, 0])
    assert (tmp_path / "predictions/test.csv").read_text() == 'dev-836-0-1,True\n"a,b",False\n'


def test_labels_are_written_with_their_probabilities(tmp_path: Path) -> None:
    write_labels(tmp_path / "test.json", ["x"], [1], [[0.25, 0.75]], ["no", "yes"])
    assert json.loads((tmp_path / "test.json").read_text()) == [{"id": "x", "label": "yes", "probabilities": {"no": 0.25, "yes": 0.75}}]
