"""Objects with attributes, and prompts about them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from dataset.tasks.ovad import OvadSet, collate_pictures, read_ovad
from dataset.tasks.prompts import attribute_prompts, class_prompts
from fake_records import picture

ATTRIBUTES = [
    {"id": 0, "name": "color:red", "is_has_att": "is", "freq_set": "head"},
    {"id": 1, "name": "hair tone:light/fair", "is_has_att": "has", "freq_set": "tail"},
]


def annotation(number: int, box: list[float], labels: list[int], image: int = 3) -> dict[str, Any]:
    return {"id": number, "image_id": image, "bbox": box, "area": box[2] * box[3], "att_vec": labels}


def content() -> dict[str, Any]:
    images = [{"id": 3, "file_name": "0.png", "width": 64, "height": 48}, {"id": 4, "file_name": "1.png", "width": 64, "height": 48}]
    objects = [
        annotation(1, [0, 0, 64, 48], [1, -1]),
        annotation(2, [8.7, 8.2, 16.9, 12.1], [0, 1]),
        annotation(3, [1, 1, 7, 7], [1, 1], 4),
    ]
    return {"images": images, "attributes": ATTRIBUTES, "annotations": objects}


def write(folder: Path, values: dict[str, Any]) -> Path:
    (folder / "ovad.json").write_text(json.dumps(values))
    return folder / "ovad.json"


def test_small_objects_are_left_out_and_crops_are_whole_pixels(folder: Path) -> None:
    found = read_ovad(write(folder, content()))
    assert found.labels.tolist() == [[1, -1], [0, 1]]  # the third has 49 pixels
    crops = OvadSet(found.pictures, folder, 16, 8, "crop")[0]["images"]
    expected = Image.fromarray(picture(0)[8:20, 8:24]).resize((16, 16), Image.Resampling.BILINEAR)
    assert np.array_equal(crops[1], np.asarray(expected))


def test_regions_share_their_image_and_mark_its_patches(folder: Path) -> None:
    batch = collate_pictures([OvadSet(read_ovad(write(folder, content())).pictures, folder, 16, 4, "region")[0]])
    assert batch["image"].shape == (1, 3, 16, 16) and batch["image_index"].tolist() == [0, 0]
    assert batch["patch_mask"][0].all()
    assert batch["patch_mask"][1].view(4, 4).nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attributes": [{"id": 0, "name": "red", "is_has_att": "is"}]}, r"ovad.json, attribute 0: needs id, name as type:word"),
        ({"annotations": [annotation(1, [0, 0, 9, 9], [1])]}, r"annotation 1: att_vec has 1 numbers for 2 attributes"),
        ({"annotations": [annotation(1, [60, 0, 9, 9], [1, 1])]}, r"annotation 1: bbox is \[60, 0, 9, 9\], which is no box in 64 x 48"),
        ({"annotations": [annotation(1, [0, 0, 9, 9], [1, 1], 8)]}, r"objects of image 8, which images does not have"),
    ],
)
def test_broken_annotations_are_named(folder: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_ovad(write(folder, content() | change))


def test_prompts_hold_all_synonyms_in_all_templates(folder: Path) -> None:
    red, hair = attribute_prompts(read_ovad(write(folder, content())).attributes, "")
    assert red == ["red", "a red", "a is red", "the red", "the is red"]
    assert len(hair) == 10 and {"a light hair", "the has fair hair"} <= set(hair)
    assert class_prompts(["ant, pismire", "bee"], ["a {}", "{}!"]) == [["a ant", "ant!", "a pismire", "pismire!"], ["a bee", "bee!"]]
    with pytest.raises(UserError, match=r'data.templates: "a photo" has no {}'):
        class_prompts(["bee"], ["a photo"])
