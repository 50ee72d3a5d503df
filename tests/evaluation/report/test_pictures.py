"""Images, heat maps and rectangles for the page."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from evaluation.report.pictures import attention_uri, image_uri, place_of_maximum, rectangle, scaled


def decoded(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2]))).convert("RGB"), dtype=float)


def test_small_images_are_enlarged_and_large_ones_reduced_in_proportion() -> None:
    assert decoded(image_uri(np.zeros((24, 48, 3), np.uint8), 192)).shape == (96, 192, 3)
    assert decoded(image_uri(np.zeros((1000, 500, 3), np.uint8), 192)).shape == (192, 96, 3)
    assert decoded(image_uri(np.zeros((2000, 1, 3), np.uint8), 192)).shape == (192, 1, 3)


def test_colours_survive() -> None:
    image = np.zeros((48, 48, 3), np.uint8)
    image[:, 24:] = (250, 10, 20)
    shown = decoded(image_uri(image, 96))
    np.testing.assert_allclose(shown[48, 90], (250, 10, 20), atol=2)
    np.testing.assert_allclose(shown[48, 5], 0, atol=2)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((3, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)]
)
def test_another_layout_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        image_uri(image, 64)


def test_heat_lies_where_the_word_looks() -> None:
    weights = np.zeros((6, 6))
    weights[1, 4] = 0.02  # the scale does not matter
    image = np.full((48, 48, 3), 128, np.uint8)
    change = np.abs(decoded(attention_uri(image, weights, 96)) - decoded(attention_uri(image, np.zeros((6, 6)), 96))).sum(axis=2)
    row, column = np.unravel_index(np.argmax(change), change.shape)
    assert 16 <= row < 32
    assert 64 <= column < 80
    assert change[80, 10] < 10


def test_maps_without_usable_weights_are_empty() -> None:
    np.testing.assert_array_equal(scaled(np.array([[np.nan, -1.0], [0.0, np.inf]])), 0.0)
    np.testing.assert_array_equal(scaled(np.array([[0.0, 0.5], [0.25, 0.0]])), [[0.0, 1.0], [0.5, 0.0]])


def test_the_strongest_place_is_told_in_words() -> None:
    weights = np.zeros((6, 6))
    weights[0, 5] = 1
    assert place_of_maximum(weights) == "upper right"
    assert place_of_maximum(np.eye(3)[[1]].repeat(3, 0) * [[0], [1], [0]]) == "centre"


def test_boxes_that_cannot_be_drawn_are_left_out() -> None:
    assert rectangle([1.234, 2, 3, 4]) == {"x": 1.23, "y": 2.0, "width": 3.0, "height": 4.0}
    assert rectangle([0, 0, np.nan, 4]) is None
    assert rectangle([0, 0, -1, 4]) is None
