"""Probes of language, vision and attributes made of the embedded data set."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.config import ClassificationData
from dataset.shapeworld_probes import attributes, one_object, similar_pair, spoil, write_probes
from dataset.tasks.classification import classification_reader
from dataset.tasks.ovad import read_ovad

COUNTS = {"train": 6, "val": 2, "test": 3}


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probes")
    write_probes(folder, 3, COUNTS, 32)
    return folder


def test_the_readers_of_real_data_read_the_probes(probes: Path) -> None:
    sources: tuple[tuple[dict[str, str], Any, tuple[int, ...]], ...] = (
        ({"kind": "imagefolder", "root": str(probes / "probe_images")}, "image", (2, 2, 3)),
        ({"kind": "glue", "task": "cola", "root": str(probes / "glue")}, "text", (6, 4, 6)),
        ({"kind": "glue", "task": "stsb", "root": str(probes / "glue")}, "text", (6, 4, 6)),
    )
    for source, inputs, counts in sources:
        read = classification_reader(ClassificationData.model_validate({"source": source, "batch_size": 1}), inputs)(probes)
        splits = ("train", "validation", "test")
        assert tuple(len(read(Path(split))) for split in splits) == counts
        if inputs == "text":
            assert [record.text for record in read(Path("heldout"))] == [record.text for record in read(Path("test"))]
    assert len(read_ovad(probes / "ovad.json").pictures) == 3
    assert len(list((probes / "probe_images/train").iterdir())) == 36


def test_a_second_call_writes_nothing(probes: Path) -> None:
    before = (probes / "ovad.json").stat().st_mtime_ns
    write_probes(probes, 3, COUNTS, 32)
    assert (probes / "ovad.json").stat().st_mtime_ns == before


def test_a_spoilt_sentence_has_the_same_words_in_an_order_that_is_wrong() -> None:
    text = "a small red circle left of a blue square"
    for seed in range(30):
        found = spoil(text, np.random.default_rng(seed))
        assert found != text and sorted(found.split()) == sorted(text.split())
        assert "red small" not in found  # two adjectives may stand either way


def test_similarity_counts_the_properties_that_are_the_same() -> None:
    item = one_object(3, "train", 0, 32).objects[0]
    found = [similar_pair(item, np.random.default_rng(seed)) for seed in range(40)]
    assert {score for *_, score in found} == {0.0, 1.25, 2.5, 3.75, 5.0}
    assert all(item.color in first for first, _, _ in found)
    assert all(item.color not in second for _, second, score in found if score == 0)


def test_an_object_has_one_colour_one_size_and_one_texture() -> None:
    known = attributes(3, 3, 32)
    assert {sum(annotation["att_vec"]) for annotation in known["annotations"]} == {3}
    assert [item["id"] for item in known["attributes"]] == list(range(11))
