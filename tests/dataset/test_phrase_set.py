"""Held-out phrases with boxes, from our own file and from Flickr30k Entities."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import UserError
from concepts import concept_stream, concept_texts
from dataset.shapeworld import write_shapeworld
from dataset.shapeworld_phrases import write_phrase_data
from dataset.streams.concepts import Concepts
from dataset.tasks.phrases import PhraseSet
from fake_records import encoded, picture

XML = """<annotation><size><width>64</width><height>48</height></size>
<object><name>1</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>32</xmax><ymax>24</ymax></bndbox></object>
<object><name>2</name><nobndbox>1</nobndbox></object></annotation>"""


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Concepts:
    return concept_stream(concept_texts(tmp_path_factory.mktemp("tokenizer")))


def phrase_set(stream: Concepts, place: Path, root: Path, **more: str) -> PhraseSet:
    return PhraseSet(place, root, stream.config, stream.texts, 32, **more)  # pyright: ignore[reportArgumentType]


def test_entities_are_read_with_the_words_that_are_marked(stream: Concepts, tmp_path: Path) -> None:
    for folder, name, text in (
        ("Annotations", "7.xml", XML),
        ("Sentences", "7.txt", "[/EN#1/people A red circle] beside [/EN#2/scene the sky] .\nNothing is marked here .\n"),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(text)
    (tmp_path / "7.jpg").write_bytes(encoded(picture(7)))
    data = phrase_set(stream, tmp_path, tmp_path)
    item = data[0]
    assert len(data) == 1 and item.caption.split() == ["A", "red", "circle", "beside", "the", "sky", "."]
    (mention,) = item.mentions
    assert mention.words == "a red circle"
    np.testing.assert_allclose(mention.boxes, [[0, 0, 0.5, 0.5]])
    said = {item.text.phrases[place - item.text.phrase_positions.start].parts for place in mention.positions}
    assert said == {("circle",), ("circle", "red")} & set(stream.texts.vocabulary.ids)
    (tmp_path / "Annotations" / "7.xml").write_text("<broken")
    with pytest.raises(UserError, match="Flickr30k Entities"):
        phrase_set(stream, tmp_path, tmp_path)


def test_without_a_known_phrase_the_words_themselves_are_compared(stream: Concepts, tmp_path: Path) -> None:
    record = {"image": "0.png", "caption": "a strange thing", "phrases": [{"words": [1, 2], "boxes": [[0, 0, 8, 8]]}]}
    (tmp_path / "0.png").write_bytes(encoded(picture(0)))
    (tmp_path / "p.json").write_text(json.dumps([record | {"regions": [[0, 0, 32, 24]]}]))
    item = phrase_set(stream, tmp_path / "p.json", tmp_path, regions="boxes")[0]
    assert {item.text.token_words[place] for place in item.mentions[0].positions} == {1, 2}
    np.testing.assert_allclose(item.regions, [[0, 0, 0.5, 0.5]])
    (tmp_path / "p.json").write_text(json.dumps([record | {"phrases": [{"words": [1], "boxes": [[0, 0, 900, 8]]}]}]))
    with pytest.raises(UserError, match="no box inside the image"):
        phrase_set(stream, tmp_path / "p.json", tmp_path)[0]


def test_the_embedded_data_set_holds_phrases_with_the_boxes_they_mean(stream: Concepts, tmp_path: Path) -> None:
    counts = {"train": 12, "val": 3, "test": 2}
    write_shapeworld(tmp_path, seed=3, train=12, validation=3, test=2, size=32)
    write_phrase_data(tmp_path, 3, counts, 32)
    before = (tmp_path / "phrases_val.json").stat().st_mtime_ns
    write_phrase_data(tmp_path, 3, counts, 32)
    assert (tmp_path / "phrases_val.json").stat().st_mtime_ns == before
    data = phrase_set(stream, tmp_path / "phrases_val.json", tmp_path / "images")
    assert len(data) == 3
    for index in range(3):
        item, record = data[index], data.records[index]
        assert len(item.mentions) == len(record["regions"]) and set(item.tags) == set(record["tags"])
        for mention in item.mentions:
            assert mention.words.split()[-1] in {*item.tags, "stripes", "dots"}
            assert torch.tensor(mention.boxes).ge(0).all()
