"""Masks of objects in COCO's notations."""

import numpy as np
import pytest

from common.errors import BadRecord
from dataset.masks import decode_mask, encode_mask

NOISE = np.random.default_rng(1).random((5, 7)) < 0.4
HOLED = np.zeros((300, 200), dtype=bool)
HOLED[40:250, 20:180] = True
HOLED[100:105, 50:55] = False


@pytest.mark.parametrize("mask", [NOISE, HOLED, ~HOLED, np.zeros((3, 4), bool), np.ones((3, 4), bool)])
def test_runs_come_back_as_they_were(mask: np.ndarray) -> None:
    written = encode_mask(mask)
    np.testing.assert_array_equal(decode_mask(written, mask.shape[1], mask.shape[0]), mask)
    assert sum(written["counts"][1::2]) == mask.sum()


def test_compressed_runs_are_those_of_pycocotools() -> None:
    """What pycocotools wrote of the same mask."""
    np.testing.assert_array_equal(decode_mask({"size": [5, 7], "counts": "23501OKO212OL"}, 7, 5), NOISE)


def test_a_polygon_holds_the_pixels_whose_middle_it_holds() -> None:
    square = decode_mask([[2, 1, 6, 1, 6, 4, 2, 4]], 8, 6)
    expected = np.zeros((6, 8), dtype=bool)
    expected[1:4, 2:6] = True
    np.testing.assert_array_equal(square, expected)
    two = decode_mask([[2, 1, 6, 1, 6, 4, 2, 4], [7, 5, 9, 5, 9, 7, 7, 7]], 8, 6)  # parts of one object; the second sticks out
    expected[5, 7] = True
    np.testing.assert_array_equal(two, expected)


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([[1, 1, 2, 2]], "no three corners"),
        ([], "neither"),
        ({"size": [6, 8], "counts": [3, 4]}, "not the 48 pixels"),
        ({"size": [8, 6], "counts": [48]}, "rows and columns"),
        ({"size": [6, 8], "counts": "P"}, "cut short"),
    ],
)
def test_what_is_no_mask_is_a_bad_record(segmentation: object, reason: str) -> None:
    with pytest.raises(BadRecord, match=reason):
        decode_mask(segmentation, 8, 6)
