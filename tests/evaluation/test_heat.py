"""Answers made of a heat map."""

import numpy as np
import pytest
import torch

from evaluation.heat import best_box, box_mask, box_scores, hot_box, hot_pixels, mask_iou, spread


def test_a_map_is_spread_as_by_torch() -> None:
    heat = np.random.default_rng(0).random((6, 6), dtype=np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(heat)[None, None], size=(48, 64), mode="bicubic")[0, 0]
    found = spread(heat, (64, 48))
    assert found.shape == (48, 64)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_scores_are_the_sum_over_whole_pixels_by_a_power_of_the_area(power: float) -> None:
    rng = np.random.default_rng(1)
    heat = rng.standard_normal((20, 30)).astype(np.float32)
    boxes = np.concatenate([rng.uniform(0, 10, (20, 2)), rng.uniform(0.5, 30, (20, 2))], axis=1)  # some reach beyond the image
    expected = [heat[int(y) : int(y + h), int(x) : int(x + w)].sum() / (w * h) ** power for x, y, w, h in boxes]
    np.testing.assert_allclose(box_scores(heat, boxes, power), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(best_box(heat, boxes, power), boxes[int(np.argmax(expected))])


def test_the_power_weighs_small_boxes_against_large_ones() -> None:
    heat = np.ones((40, 40), dtype=np.float32)
    heat[10:14, 10:14] = 5
    small, large = [10.0, 10.0, 4.0, 4.0], [0.0, 0.0, 40.0, 40.0]
    assert best_box(heat, [large, small], 1.0).tolist() == small
    assert best_box(heat, [small, large], 0.0).tolist() == large


def test_some_box_is_chosen_where_there_is_no_heat_and_none_without_area() -> None:
    cold = np.zeros((8, 8), dtype=np.float32)
    assert best_box(cold, [[1, 1, 0, 4], [2, 2, 3, 3]]).tolist() == [2, 2, 3, 3]
    assert best_box(cold - 1, [[1, 1, 4, 4], [2, 2, 3, 3]]).tolist() == [2, 2, 3, 3]
    assert hot_box(cold, 0.5).tolist() == [0, 0, 8, 8]
    assert not hot_pixels(cold, 0.0).any()


def test_the_hot_box_is_around_the_part_with_the_most_heat() -> None:
    heat = np.zeros((20, 20), dtype=np.float32)
    heat[2:5, 3:9] = 0.8  # more heat in all
    heat[12:14, 12:14] = 1.0  # the peak
    heat[5, 3] = 0.3
    assert hot_box(heat, 0.5).tolist() == [3, 2, 6, 3]
    assert hot_box(heat, 0.2).tolist() == [3, 2, 6, 4]
    assert hot_box(heat, 0.9).tolist() == [12, 12, 2, 2]


def test_masks_overlap_by_pixels() -> None:
    first, second = box_mask([2, 1, 4, 3], (10, 8)), box_mask([4, 1, 4, 3], (10, 8))
    assert first.sum() == second.sum() == 12
    assert mask_iou(first, second) == 6 / 18
    assert mask_iou(first & False, second & False) == 0.0
