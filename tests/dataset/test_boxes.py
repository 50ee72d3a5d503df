"""Boxes through crops, flips and resizes, and the patches they cover."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from dataset.boxes import Placement, crop_keeping, flip_box, intersect, patch_mask, scale_box, target_box, usable_box, visible_in_crop

OFFICIAL = Path(__file__).parents[3] / "shared/golden/functions_x2vlm/functions.json"


@pytest.mark.parametrize(
    ("size", "patch", "box", "patches"),
    [
        (64, 16, (32, 48.0, 16, 16.0), [14]),
        (224, 16, (16, 176.0, 32, 48.0), [155, 156, 169, 170, 183, 184]),
        (64, 16, (3.38163101233201, 2.5657190243339034, 57.72313185252399, 38.30286583096214), list(range(12))),
        (96, 16, (80, 16.0, 16, 80.0), [11, 17, 23, 29, 35]),
        (64, 16, (7.143970327238632, 15.546036242082284, 8.113354802918675, 44.42907224052804), [0, 4, 8, 12]),
    ],
)
def test_a_box_covers_every_patch_it_touches(size, patch, box, patches):
    assert np.flatnonzero(patch_mask(box, size, patch)).tolist() == patches


def test_patches_equal_every_recorded_official_result():
    if not OFFICIAL.is_file():
        pytest.skip("the recorded official results are not beside this project")
    for case in json.loads(OFFICIAL.read_text())["get_image_attns"]:
        mask = patch_mask(tuple(case["box_xywh"]), case["image_res"], case["patch_size"])
        assert [0, *(np.flatnonzero(mask) + 1).tolist()] == case["ones"]
        assert len(mask) + 1 == case["length"]


@pytest.mark.parametrize("box", [(64, 64, 0, 0), (-5, 10, 2, 2), (10, 63.9999, 0.00001, 0.00001), (200, 0, 5, 5)])
def test_even_a_vanishing_box_covers_one_patch(box):
    assert patch_mask(box, 64, 16).any()


def test_random_crops_hold_the_box_and_reach_every_border():
    rng = np.random.default_rng(0)
    crops = np.array([crop_keeping((10.5, 5.0, 4.2, 3.0), 20, 12, rng) for _ in range(2000)])
    assert crops[:, 0].min() == 0
    assert crops[:, 0].max() == 10
    assert crops[:, 1].min() == 0
    assert crops[:, 1].max() == 5
    assert crops[:, 2].min() == 15
    assert crops[:, 2].max() == 20
    assert crops[:, 3].min() == 8
    assert crops[:, 3].max() == 12


def test_a_box_of_the_whole_image_allows_no_crop():
    rng = np.random.default_rng(0)
    assert {crop_keeping((0, 0, 20, 12), 20, 12, rng) for _ in range(20)} == {(0, 0, 20, 12)}


def test_a_box_is_kept_only_if_enough_of_it_is_visible():
    crop = (10, 0, 30, 20)
    assert visible_in_crop((0, 0, 16, 10), crop, 0.5) is None
    assert visible_in_crop((8, 2, 10, 10), crop, 0.5) == (0, 2, 8, 10)
    assert intersect((0, 0, 10, 10), crop) is None


def test_flip_and_scale_and_target():
    assert flip_box((1, 2, 3, 4), 10) == (6, 2, 3, 4)
    assert flip_box(flip_box((1, 2, 3, 4), 10), 10) == (1, 2, 3, 4)
    assert scale_box((1, 2, 3, 4), 2, 3) == (2, 6, 6, 12)
    assert target_box((0, 0, 32, 16), 32) == (0.5, 0.25, 1.0, 0.5)


def test_placement_moves_a_box_with_its_pixels():
    pixels = np.zeros((40, 60), dtype=np.uint8)
    pixels[10:20, 30:50] = 255
    placement = Placement(crop=(20, 0, 60, 40), flipped=True, size=80)
    crop = pixels[0:40, 20:60][:, ::-1].repeat(2, 0).repeat(2, 1)
    rows, columns = np.nonzero(crop)
    x, y, w, h = placement.place((30, 10, 20, 10), 0.5) or (0, 0, 0, 0)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x, y, x + w, y + h)


@pytest.mark.parametrize(
    "value",
    [[0, 0, 0, 5], [0, 0, 5, -1], [18, 0, 5, 5], [-3, 0, 5, 5], [0, 9, 5, 9], [1, 2, 3], "box", None, [1, 2, 3, "4"], [math.nan, 0, 1, 1]],
)
def test_unusable_boxes_are_refused(value):
    assert usable_box(value, 20, 12) is None


def test_a_box_that_sticks_out_by_rounding_is_cut():
    assert usable_box([15, 0, 5.6, 12.3], 20, 12) == (15, 0, 5, 12)
