"""Layouts of evaluation splits."""

import base64
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import BadRecord, UserError
from dataset.config import RetrievalData
from dataset.storage import Storage
from dataset.streams.base import TextSide
from dataset.tasks.galleries import GallerySource, gallery_sources, read_gallery
from dataset.tasks.retrieval import RetrievalGallery
from dataset.tasks.wit import retrieval_train
from fake_records import encoded, picture, write_json


def write_lines(path: Path, records: list[Any]) -> Path:
    path.write_text("\n".join(record if isinstance(record, str) else json.dumps(record) for record in records), encoding="utf-8")
    return path


def wit(url: str, number: int, caption: Any) -> dict[str, Any]:
    content = base64.b64encode(encoded(picture(number))).decode()
    return {"image_url": url, "image_content": content, "caption_reference_description": caption}


def test_xflickrco_takes_coco_images_from_their_own_folder_and_skips_images_without_sentences(folder: Path) -> None:
    records = [
        {"sentences": ["Ein Hund.", ""], "id": "1", "img_path": "1.png"},
        {"sentences": ["", " "], "id": "2", "img_path": "2.png"},
        {"sentences": ["Zwei Katzen"], "id": "3", "img_path": "COCO_val2014_3.jpg"},
    ]
    source = GallerySource(write_lines(folder / "de.jsonl", records), folder, folder / "coco", max_words=80)
    found = read_gallery(source)
    assert [(image.image, image.captions) for image in found] == [
        (folder / "1.png", ["ein hund"]),
        (folder / "coco" / "COCO_val2014_3.jpg", ["zwei katzen"]),
    ]


def test_wit_groups_captions_by_image_and_decodes_the_images_it_holds(folder: Path) -> None:
    records = [wit("a", 0, "Ein Haus"), wit("b", 1, "."), wit("a", 0, "Das Haus")]
    gallery = RetrievalGallery(GallerySource(write_lines(folder / "wit.jsonl", records), folder), 32)
    assert gallery.texts == ["ein haus", "das haus", "."]
    assert gallery.text_image == [0, 0, 1]
    assert gallery.images[1].shape == (3, 32, 32)
    assert (gallery.images[0] != gallery.images[1]).any()


def test_wit_is_trained_on_by_image_from_its_lines(folder: Path, text: TextSide) -> None:
    records = [wit("a", 0, "A red circle!"), wit("b", 1, "."), wit("a", 0, "the left star"), wit("c", 2, None)]
    file = str(write_lines(folder / "wit.jsonl", records))
    settings = {"train": file, "validation": file, "test": file, "image_root": "", "batch_size": 2, "expected": {"train": 4}}
    augmentation = {"crop_scale": None, "flip": 1.0, "careful_flip": True, "rand_augment": False}
    data = RetrievalData.model_validate(settings | {"augmentation": augmentation})
    stream = retrieval_train(data, text, 32, "pairs", Storage())
    samples = [stream.sample(index, np.random.default_rng(index)) for index in range(3)]
    assert [sample.rows[0].text for sample in samples] == ["a red circle", ".", "the left star"]
    ids = [sample.rows[0].sample_id for sample in samples]
    assert ids[0] == ids[2] != ids[1]
    assert np.array_equal(samples[0].image[:, ::-1], samples[2].image)  # what names a side is not mirrored
    batch = stream.collate([samples[:2]], [])
    assert (batch["image"].shape, batch["sample_ids"].tolist()) == ((2, 3, 32, 32), ids[:2])
    with pytest.raises(BadRecord, match=r"wit\.jsonl:4: caption_reference_description is no text"):
        stream.sample(3, np.random.default_rng(0))


def test_punctuation_becomes_a_space_or_nothing(folder: Path) -> None:
    file = Path(write_json(folder / "test.json", [{"image": "0.png", "caption": ["it's"]}]))
    assert read_gallery(GallerySource(file, folder))[0].captions == ["it s"]
    assert read_gallery(GallerySource(file, folder, punctuation="delete"))[0].captions == ["its"]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"sentences": ["a"], "img_path": "x"}, "{broken"], "line 2: not JSON"),
        ([{"sentences": ["a"]}], "line 1: img_path is missing"),
        ([{"sentences": ["..."], "img_path": "x"}], "line 1: the caption is empty"),
        ([{"sentences": [], "img_path": "x"}], "holds no image with a caption"),
        ([wit("a", 0, "b"), wit("c", 0, None)], "line 2: caption_reference_description is empty"),
        ([wit("a", 0, "b") | {"image_content": "%"}], "line 1: image_content is not base64"),
        ([wit("a", 0, "b"), "[1]"], "line 2: a JSON object is missing"),
    ],
)
def test_the_first_bad_line_is_named(folder: Path, records: list[Any], message: str) -> None:
    file = write_lines(folder / "test.jsonl", records)
    with pytest.raises(UserError, match=message) as caught:
        read_gallery(GallerySource(file, folder))
    assert "test.jsonl" in str(caught.value)


def test_files_may_be_given_by_language_with_the_numbers_of_their_captions(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for language in ("en", "de"):
        write_json(folder / f"{language}.json", [{"image": "0.png", "caption": ["a", "b"]}])
    files = {language: str(folder / f"{language}.json") for language in ("en", "de")}
    data = RetrievalData.model_validate(
        {
            "train": "t",
            "validation": str(folder / "en.json"),
            "test": files,
            "image_root": str(folder),
            "batch_size": 2,
            "max_words": 80,
            "punctuation": "delete",
            "expected": {"validation": 2, "test/en": 2, "test/de": 5000},
        }
    )
    assert set(gallery_sources(data, "validation")) == {""}
    sources = gallery_sources(data, "test")
    assert {language: source.expected for language, source in sources.items()} == {"en": 2, "de": 5000}
    assert (sources["de"].max_words, sources["de"].punctuation) == (80, "delete")
    with caplog.at_level(logging.WARNING):
        read_gallery(gallery_sources(data, "validation")[""])
        read_gallery(sources["en"])
        assert not caplog.records
        read_gallery(sources["de"])
    assert "de.json: 2 captions, the published data has 5,000" in caplog.text
