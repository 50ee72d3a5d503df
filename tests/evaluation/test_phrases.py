"""Phrase grounding by ranked regions."""

import numpy as np
import pytest

from evaluation.phrases import phrase_metrics, random_region, region_hits

REGIONS = [[0, 0, 4, 4], [4, 0, 8, 4], [0, 0, 8, 4], [0, 4, 8, 8]]


def test_a_region_points_where_its_middle_is_and_is_near_where_it_overlaps_half() -> None:
    pointed, near = region_hits(REGIONS, [[0, 0, 4, 3]])
    assert pointed.tolist() == [True, False, True, False]
    assert near.tolist() == [True, False, False, False]


def test_a_phrase_for_several_things_is_met_by_each_and_by_the_box_around_them() -> None:
    pointed, near = region_hits(REGIONS, [[0, 0, 4, 4], [4, 0, 8, 4]])
    assert near.tolist() == [True, True, True, False]
    assert pointed.tolist() == [True, True, True, False]


def test_metrics_count_phrases_by_their_best_regions() -> None:
    first = np.array([True, False, False]), np.array([False, True, False])
    second = np.array([False, False, True]), np.array([False, False, False])
    assert phrase_metrics([first, second]) == {"pointing": 50.0, "recall_1": 0.0, "recall_5": 50.0, "recall_10": 50.0}
    with pytest.raises(ValueError, match="no phrases"):
        phrase_metrics([])


def test_a_random_region_scores_what_random_orders_score_on_average() -> None:
    rng = np.random.default_rng(0)
    row = np.arange(12) < 3, np.arange(12) < 2
    drawn = [phrase_metrics([(row[0][order], row[1][order])]) for order in (rng.permutation(12) for _ in range(800))]
    for name, value in random_region([row]).items():
        assert value == pytest.approx(np.mean([metrics[name] for metrics in drawn]), abs=7.0), name
