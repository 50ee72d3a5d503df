"""Referring expressions with the boxes to choose among."""

import json

import numpy as np
import pytest
import torch

from common.errors import UserError
from dataset.config import BoxAugmentationConfig
from dataset.tasks.expressions import Expressions
from dataset.tasks.grounding_config import CandidateSettings, GroundingData
from dataset.tasks.regions import ExpressionRegions, candidate_boxes, whole_image
from fake_records import write_json

BOXES = [[8, 6, 16, 12], [-4, 0, 20, 24], [8, 6, 16, 12], [0, 0, 0, 5], [48, 36, 16, 12]]
"""Candidates in pictures of 64 x 48: one twice, one that sticks out, one that is none."""


def expression(number, **changes):
    return {"image": f"{number}.png", "text": "red ring", "bbox": BOXES[0], "candidates": BOXES} | changes


def stream(folder, text, records, augmentation=None, **more):
    file = write_json(folder / "train.json", records)
    off = augmentation or BoxAugmentationConfig(crop=False, flip=0.0, rand_augment=False)
    data = GroundingData(train=file, validation="v", test="t", image_root=str(folder), batch_size=2, augmentation=off, **more)
    return ExpressionRegions(data, CandidateSettings(max=3, max_tag_tokens=6), text, 32)


def batch_of(stream, seed=0):
    samples = [stream.sample(i, np.random.default_rng(seed + i)) for i in range(len(stream))]
    return stream.collate([samples], [np.random.default_rng(0)])


def test_a_batch_has_the_usable_candidates_of_each_image_as_shares_and_its_tags(folder, text):
    found = batch_of(stream(folder, text, [expression(0, tags=["Ring", "ring"]), expression(1, candidates=BOXES[4:])]))
    expected = torch.tensor([[8 / 64, 6 / 48, 24 / 64, 18 / 48], [0, 0, 0.25, 0.5], [0.75, 0.75, 1, 1]])
    torch.testing.assert_close(found["region_boxes"][0], expected)
    torch.testing.assert_close(found["region_boxes"][1], torch.stack([expected[2], torch.zeros(4), torch.zeros(4)]))
    assert found["region_mask"].tolist() == [[True] * 3, [True, False, False]]
    torch.testing.assert_close(found["target_box"][0], torch.tensor([16 / 64, 12 / 48, 16 / 64, 12 / 48]))
    tagged, untagged = found["tag_mask"].sum(dim=1).tolist()
    assert untagged == 2 < tagged  # [CLS] [SEP]


def test_candidates_follow_the_picture_through_crop_and_mirror(folder, text):
    found = stream(folder, text, [expression(0)], BoxAugmentationConfig(crop=True, flip=1.0, rand_augment=False))
    for seed in range(10):
        batch = batch_of(found, seed)
        x, y, w, h = batch["target_box"][0]
        torch.testing.assert_close(batch["region_boxes"][0, 0], torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2]))


def test_where_no_candidate_is_a_box_in_the_image_it_is_the_whole_image():
    assert candidate_boxes([[70, 0, 5, 5], "box"], (64, 48)) == [(0.0, 0.0, 64.0, 48.0)]
    assert whole_image([(0.0, 0.0, 64.0, 48.0), (16.0, 12.0, 8.0, 6.0)], (64, 48)).tolist() == [[0, 0, 1, 1], [0.25, 0.25, 0.375, 0.375]]


def test_a_record_without_candidates_is_an_error_and_a_file_of_detections_gives_them(folder, text):
    records = [expression(0), expression(1, candidates=None)]
    with pytest.raises(UserError, match=r"train.json, record 1 has no candidates to choose among. Name a file .* data.detections"):
        stream(folder, text, records)
    assert len(Expressions((str(folder / "train.json"),), folder).records(("image",))) == 2  # other methods do without
    boxes = folder / "dets.json"
    boxes.write_text(json.dumps({"0": BOXES[:1], "1": BOXES[1:2]}))
    assert batch_of(stream(folder, text, records, detections=str(boxes)))["region_mask"].tolist() == [[True], [True]]
