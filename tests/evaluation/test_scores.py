"""Scores of labels and numbers, and average precision of attributes."""

from pathlib import Path

import numpy as np
import pytest

from evaluation.attributes import attribute_map, average_precision, chance_map
from evaluation.classification import write_glue
from evaluation.scores import f1, matthews, mean_per_class, pearson, score, spearman


def test_scores_of_two_classes_follow_from_the_table_of_outcomes() -> None:
    predicted, true = [1, 1, 0, 0, 1, 0], [1, 0, 0, 1, 1, 0]  # 2 found, 1 false alarm, 1 missed, 2 rightly left
    assert f1(predicted, true) == pytest.approx(100 * 4 / 6)
    assert matthews(predicted, true) == pytest.approx(100 * (2 * 2 - 1 * 1) / np.sqrt(3 * 3 * 3 * 3))
    assert f1([0, 0], [1, 0]) == matthews([0, 0], [1, 0]) == 0.0


def test_rare_classes_count_as_much_as_others() -> None:
    assert mean_per_class([0, 0, 0, 0], [0, 0, 0, 1]) == 50.0


def test_correlations_of_numbers_and_of_their_ranks() -> None:
    assert pearson([1, 2, 3], [2, 4, 6]) == pytest.approx(100)
    assert spearman([1, 10, 100], [3, 2, 1]) == pytest.approx(-100)
    assert spearman([1, 1, 2], [1, 2, 3]) == pytest.approx(pearson([1.5, 1.5, 3], [1, 2, 3]))  # equal values share a rank
    assert pearson([1, 1, 1], [1, 2, 3]) == 0.0
    with pytest.raises(ValueError, match="0 predictions for 0 labels"):
        score([], [], ["acc"])


def test_average_precision_steps_over_objects_of_equal_score_together() -> None:
    scores, positive = np.array([0.9, 0.8, 0.8, 0.1]), np.array([True, False, True, False])
    assert average_precision(scores, positive) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert average_precision(np.zeros(4), positive) == 0.5


def test_unknown_labels_and_attributes_without_objects_do_not_count() -> None:
    labels = np.array([[1, 0, 1], [0, 0, -1], [-1, 0, 0]])
    scores = np.array([[0.2, 0, 0.1], [0.1, 0, 9.0], [9.0, 0, 0.9]])
    found = attribute_map(scores, labels, ["head", "head", "tail"])
    assert found == {"map": 75.0, "map_head": 100.0, "map_tail": 50.0}
    assert chance_map(labels, ["head", "head", "tail"]) == {"map": 50.0, "map_head": 50.0, "map_tail": 50.0}


def test_glue_gets_names_of_labels_and_numbers_in_their_range(tmp_path: Path) -> None:
    write_glue(tmp_path / "RTE.tsv", ["0", "1"], [1, 0], ["entailment", "not_entailment"])
    write_glue(tmp_path / "STS-B.tsv", ["0", "1"], [5.2, 1.23456], [])
    assert (tmp_path / "RTE.tsv").read_text() == "index\tprediction\n0\tnot_entailment\n1\tentailment\n"
    assert (tmp_path / "STS-B.tsv").read_text() == "index\tprediction\n0\t5.000\n1\t1.235\n"
