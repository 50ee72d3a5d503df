"""What image classification does to pictures."""

import random

import numpy as np
import pytest
from PIL import Image

from dataset.class_augmentation import augment_for_classes, erase, middle
from dataset.config import ClassAugmentation
from fake_records import picture

PLAIN = {"crop_scale": None, "flip": 0.0, "rand_augment": False}


def test_a_policy_follows_the_samples_generator_and_leaves_the_process_alone() -> None:
    image, config = Image.fromarray(picture(1)), ClassAugmentation.model_validate({**PLAIN, "auto_augment": "rand-m9-mstd0.5-inc1"})
    random.seed(3)
    before = random.getstate()
    first, again, other = (augment_for_classes(image, 32, config, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert random.getstate() == before


def test_erasing_fills_one_rectangle() -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    filled = erase(pixels, np.random.default_rng(0)).max(axis=2) > 0
    rows, columns = np.flatnonzero(filled.max(axis=1)), np.flatnonzero(filled.max(axis=0))
    assert filled[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.99  # a pixel of noise may be black
    assert 0.015 < filled.mean() < 0.36 and not pixels.any()


def test_the_middle_is_cut_out_of_the_resized_image() -> None:
    ramp = np.broadcast_to(np.arange(128, dtype=np.uint8)[None, :, None], (64, 128, 3))
    found = middle(Image.fromarray(np.ascontiguousarray(ramp)), 56, 56 / 64)  # already of the size: nothing but the cut
    assert np.array_equal(found, ramp[4:60, 36:92])


def test_two_policies_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="set rand_augment to false"):
        ClassAugmentation(auto_augment="rand-m9")
