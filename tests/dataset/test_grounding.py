"""Referring expressions."""

import numpy as np
import pytest
import torch

from common.errors import BadRecord, UserError
from dataset.config import BoxAugmentationConfig
from dataset.tasks.expressions import Expressions
from dataset.tasks.grounding import GroundingSet, GroundingTrain, collate_grounding
from dataset.tasks.grounding_config import GroundingData
from fake_records import encoded, write_json

PLAIN = BoxAugmentationConfig(crop=False, flip=0.0, rand_augment=False)


def expression(number: int, **changes) -> dict:
    record = {
        "image": f"{number}.png",
        "text": f"Red ring {number}!",
        "ref_id": 10 + number,
        "bbox": [8 * number, 6, 16, 12],
        "width": 64,
        "height": 48,
    }
    return record | changes


def training(folder, text, records, augmentation=PLAIN) -> GroundingTrain:
    file = write_json(folder / "train.json", records)
    config = GroundingData(train=file, validation="v", test="t", image_root=str(folder), batch_size=3, augmentation=augmentation)
    return GroundingTrain(config, text, 32)


def test_training_batch_has_one_box_for_each_image(folder, text):
    stream = training(folder, text, [expression(i) for i in range(3)])
    batch = stream.collate([[stream.sample(i, np.random.default_rng(i)) for i in range(3)]], [np.random.default_rng(0)])
    assert set(batch) == {
        "image", "text_ids", "text_mask", "text_bins", "sample_ids", "negative_draws", "group", "image_index", "target_box", "is_image"
    }  # fmt: skip
    assert batch["image_index"].tolist() == [0, 1, 2]
    assert not batch["is_image"].any()
    expected = [[(8 * i + 8) / 64, 12 / 48, 16 / 64, 12 / 48] for i in range(3)]
    assert torch.allclose(batch["target_box"], torch.tensor(expected))


def test_random_crops_always_keep_the_whole_box(folder, text):
    stream = training(folder, text, [expression(1, image="m.png")], BoxAugmentationConfig(rand_augment=False))
    pixels = np.zeros((48, 64, 3), dtype=np.uint8)
    pixels[6:18, 8:24] = 255
    (folder / "m.png").write_bytes(encoded(pixels))
    for seed in range(30):
        sample = stream.sample(0, np.random.default_rng(seed))
        x, y, w, h = sample.rows[0].box or (0, 0, 0, 0)
        rows, columns = np.nonzero(sample.image[..., 0] > 127)
        assert np.allclose([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], [x, y, x + w, y + h], atol=1.5)


def test_expressions_with_sides_are_not_mirrored(folder, text):
    flip = BoxAugmentationConfig(crop=False, flip=1.0, rand_augment=False)
    stream = training(folder, text, [expression(0), expression(0, text="the left ring")], flip)
    mirrored, plain = (stream.sample(i, np.random.default_rng(0)) for i in range(2))
    assert (mirrored.image[:, ::-1] == plain.image).all()
    assert (mirrored.rows[0].box, plain.rows[0].box) == ((24, 4, 8, 8), (0, 4, 8, 8))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bbox": [60, 0, 20, 10]}, r"record 0: box \[60, 0, 20, 10\] is empty or outside the image of 64 x 48"),
        ({"bbox": [6, 0, 0, 10]}, "is empty or outside"),
        ({"text": "?"}, "record 0: the caption is empty"),
        ({"image": "gone.png"}, "gone.png cannot be read"),
        ({"width": 48, "height": 64}, "has 64 x 48 pixels, the record says 48 x 64"),
    ],
)
def test_unusable_expressions_are_bad_records_in_training_and_errors_in_evaluation(folder, text, changes, reason):
    stream = training(folder, text, [expression(0, **changes)])
    with pytest.raises(BadRecord, match=reason):
        stream.sample(0, np.random.default_rng(0))
    with pytest.raises(UserError, match=reason):
        GroundingSet(Expressions((str(folder / "train.json"),), folder), 32)[0]


def test_evaluation_items_keep_pixels_of_the_original_image(folder, text):
    candidates = [[0, 6, 16, 12], [30, 6, 8, 8]]
    write_json(folder / "test.json", [expression(0, candidates=candidates), expression(2)])
    items = GroundingSet(Expressions((str(folder / "test.json"),), folder), 32)
    assert len(items) == 2
    item = items[0]
    assert item["text"] == "red ring 0"
    assert item["box"].tolist() == [0, 6, 16, 12]
    assert item["size"] == (64, 48)
    assert item["ref_id"] == 10
    assert item["candidates"] == candidates
    assert items[1]["candidates"] is None
    batch = collate_grounding([items[0], items[1]], text.tokenizer, 24)
    assert batch["image"].shape == (2, 3, 32, 32)
    assert batch["image"].dtype == torch.uint8
    assert batch["text_ids"].shape == batch["text_mask"].shape == (2, 8)
    assert batch["box"].tolist() == [[0, 6, 16, 12], [16, 6, 16, 12]]
    assert batch["size"].tolist() == [[64, 48], [64, 48]]
    assert batch["items"][1]["ref_id"] == 12
