"""Overlap rules, accuracies and the guesses beside them."""

import numpy as np
import pytest

from evaluation.grounding import (
    candidates_of_images,
    grounding_baselines,
    grounding_metrics,
    iou,
    iou_inclusive,
    largest_candidate,
    mean_relative_box,
    place_box,
    random_candidate_metrics,
)


def test_iou_equals_counting_pixels() -> None:
    rng = np.random.default_rng(1)
    grid = np.mgrid[:40, :40]

    def covered(box: np.ndarray) -> np.ndarray:
        x, y, w, h = box
        return (grid[1] >= x) & (grid[1] < x + w) & (grid[0] >= y) & (grid[0] < y + h)

    for _ in range(100):
        first, second = np.concatenate([rng.integers(0, 20, (2, 2)), rng.integers(1, 20, (2, 2))], axis=1)
        a, b = covered(first), covered(second)
        assert iou(first, second) == pytest.approx((a & b).sum() / (a | b).sum())


def test_inclusive_rule_differs_only_where_a_strip_of_one_pixel_is_shared() -> None:
    box = [10.0, 10.0, 4.0, 4.0]
    shifted = np.array([[10.0 + shift, 10.0, 4.0, 4.0] for shift in (0, 1, 2, 3, 4)])
    plain, inclusive = iou(box, shifted), iou_inclusive(box, shifted)
    np.testing.assert_allclose(inclusive[:3], plain[:3])
    assert plain[3] > 0
    assert inclusive[3] == 0  # columns 13 to 13: first and last shared pixel are the same
    assert inclusive[4] == plain[4] == 0


@pytest.mark.parametrize("rule", [iou, iou_inclusive])
def test_unusable_boxes_have_no_overlap(rule) -> None:
    good = [0.0, 0.0, 10.0, 10.0]
    bad = [[0, 0, 0, 10], [0, 0, -5, 10], [np.nan, 0, 10, 10], [0, 0, np.inf, 10], [-np.inf, 0, np.inf, 10]]
    np.testing.assert_array_equal(rule(bad, good), 0.0)
    np.testing.assert_array_equal(rule(good, bad), 0.0)


def test_overlap_of_exactly_one_half_is_right() -> None:
    assert grounding_metrics([[0, 0, 10, 10]], [[0, 0, 10, 20]]) == {"accuracy": 100.0, "accuracy_inclusive": 100.0, "mean_iou": 0.5}


def test_accuracy_is_percent_and_overlap_a_share() -> None:
    true = [[0, 0, 10, 10]] * 4
    found = grounding_metrics([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 4], [50, 50, 5, 5]], true)
    assert found["accuracy"] == 50.0
    assert found["mean_iou"] == pytest.approx((1 + 0.9 + 0.4 + 0) / 4)


@pytest.mark.parametrize("shape", [(0, 4), (2, 4), (3, 3)])
def test_predictions_of_another_shape_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        grounding_metrics(np.ones(shape), np.ones((3, 4)))


def test_mean_box_is_the_mean_of_shares() -> None:
    relative = mean_relative_box([[0, 0, 10, 10], [100, 50, 100, 50]], [[20, 40], [200, 100]])
    np.testing.assert_allclose(relative, [0.25, 0.25, 0.5, 0.375])
    np.testing.assert_allclose(place_box(relative, [[40, 80], [8, 8]]), [[10, 20, 20, 30], [2, 2, 4, 3]])


def test_candidates_are_the_distinct_boxes_of_the_same_image() -> None:
    boxes = [[0, 0, 2, 2], [5, 5, 3, 3], [0, 0, 2, 2], [1, 1, 1, 1]]
    candidates = candidates_of_images(["a", "a", "a", "b"], boxes)
    assert [len(found) for found in candidates] == [2, 2, 2, 1]
    np.testing.assert_array_equal(largest_candidate(candidates), [[5, 5, 3, 3]] * 3 + [[1, 1, 1, 1]])


def test_random_candidate_is_the_expectation_over_all_choices() -> None:
    candidates = [np.array([[0, 0, 10, 10], [20, 20, 10, 10]]), np.array([[0, 0, 10, 10], [0, 0, 10, 6], [30, 30, 4, 4], [0, 0, 10, 1]])]
    found = random_candidate_metrics(candidates, [[0, 0, 10, 10]] * 2)
    assert found["accuracy"] == pytest.approx(100 * (1 / 2 + 2 / 4) / 2)
    assert found["mean_iou"] == pytest.approx((1 / 2 + (1 + 0.6 + 0.1) / 4) / 2)


def test_baselines_stand_beside_only_what_is_known() -> None:
    true, sizes = [[12, 12, 24, 24]], [[48, 48]]
    assert grounding_baselines(true, sizes).keys() == {"centre box"}
    found = grounding_baselines(true, sizes, train_boxes=[[0, 0, 6, 6]], train_sizes=[[48, 48]], candidates=[np.array([[12, 12, 24, 24]])])
    assert found["centre box"]["accuracy"] == found["largest object"]["accuracy"] == found["random object"]["accuracy"] == 100.0
    assert found["mean box"]["accuracy"] == 0.0


def test_accuracies_are_those_of_counting_pixels_by_refers_rule() -> None:
    """REFER's boxes are whole pixels, the last at x + w - 1; boxes that share one row or column of pixels share nothing."""
    rng = np.random.default_rng(2)
    first, second = (np.concatenate([rng.integers(0, 12, (300, 2)), rng.integers(1, 14, (300, 2))], axis=1) for _ in range(2))
    official = []
    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        columns, rows = (set(range(a[k], a[k] + a[k + 2])) & set(range(b[k], b[k] + b[k + 2])) for k in (0, 1))
        shared = len(columns) * len(rows) if min(len(columns), len(rows)) > 1 else 0
        official.append(shared / (a[2] * a[3] + b[2] * b[3] - shared))
    np.testing.assert_allclose(iou_inclusive(first, second), official)
    assert 0 < np.mean(np.array(official) >= 0.5) < 1
    assert grounding_metrics(first, second)["accuracy_inclusive"] == pytest.approx(100 * np.mean(np.array(official) >= 0.5))
