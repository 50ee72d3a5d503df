"""Captions of the embedded data set that name objects from left to right."""

import json
from pathlib import Path

import pytest

from common.errors import UserError
from dataset.shapeworld_captions import from_left_to_right, write_captions
from dataset.shapeworld_sample import make_scene

SEED, SIZE, COUNTS = 3, 32, {"train": 5, "val": 3, "test": 3}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    (tmp_path / "meta.json").write_text("{}")
    write_captions(tmp_path, SEED, COUNTS, SIZE)
    return tmp_path / "captioning"


def test_every_object_is_named_from_left_to_right_with_and_without_its_size(written: Path) -> None:
    for index, record in enumerate(json.loads((written / "test.json").read_text())):
        scene = make_scene(SEED, "test", index, SIZE)
        objects = [scene.objects[place] for place in from_left_to_right(scene)]
        assert [item.middle()[0] for item in objects] == sorted(item.middle()[0] for item in objects)
        plain, sized = (caption.replace(" and ", ", ").split(", ") for caption in record["caption"])
        assert plain == [f"a {item.color} {item.shape}" for item in objects]
        names = {"small": {"small", "little"}, "large": {"large", "big"}}
        for item, said in zip(objects, sized, strict=True):
            _, size, color, shape = said.split(" ")
            assert (color, shape) == (item.color, item.shape)
            assert size in names[item.size]


def test_training_captions_are_a_record_each_and_know_their_image(written: Path) -> None:
    records = json.loads((written / "train.json").read_text())
    assert [record["image_id"] for record in records] == [index for index in range(COUNTS["train"]) for _ in range(2)]
    assert [record["image"] for record in records[::2]] == [f"train/train-{index:06d}.png" for index in range(COUNTS["train"])]


def test_a_second_run_leaves_the_files_and_another_seed_replaces_them(written: Path) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in written.iterdir()}
    write_captions(written.parent, SEED, COUNTS, SIZE)
    assert {file.name: file.stat().st_mtime_ns for file in written.iterdir()} == before
    texts = (written / "val.json").read_text()
    write_captions(written.parent, SEED + 1, COUNTS, SIZE)
    assert (written / "val.json").read_text() != texts


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no embedded data set"):
        write_captions(tmp_path, SEED, COUNTS, SIZE)
