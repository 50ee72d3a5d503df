"""The stream of concepts: layout of texts with phrases, masking, tags and regions."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from common.errors import BadRecord, UserError
from common.labels import IGNORED
from concepts import MAX_TOKENS, RESERVE, concept_stream, concept_texts
from dataset.concept_text import ConceptTexts
from dataset.concepts import ConceptStream
from dataset.phrases import Phrase, phrases_of
from dataset.phrases.vocabulary import token_map
from dataset.region_features import RegionFeatures
from dataset.streams.base import Sample
from dataset.streams.concepts import stored_phrases, tags_of
from fake_records import SENTENCES

TEXT = "a red circle left of a blue square"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> ConceptTexts:
    return concept_texts(tmp_path_factory.mktemp("tokenizer"))


def batch_of(texts: ConceptTexts, seed: int, **changes: object) -> dict[str, Tensor]:
    stream = concept_stream(texts, **changes)
    samples: list[Sample] = [stream.sample(index, np.random.default_rng((seed, index))) for index in range(4)]
    return stream.collate([samples[:2], samples[2:]], [np.random.default_rng(g) for g in range(2)])


def test_phrases_stand_between_words_and_end_and_take_what_room_there_is(texts: ConceptTexts) -> None:
    phrases = phrases_of(TEXT)
    text = texts.text(TEXT, phrases)
    places = text.phrase_positions
    assert (text.ids[0], text.ids[places.stop]) == (texts.cls_id, texts.sep_id)
    assert text.ids[places.start : places.stop] == text.phrase_ids == [texts.vocabulary.ids[phrase.parts] for phrase in phrases]
    crowded = texts.text(TEXT, phrases * 9)
    assert len(crowded.ids) == MAX_TOKENS + RESERVE
    assert len(crowded.phrases) == MAX_TOKENS + RESERVE - 2 - crowded.words
    assert texts.text(TEXT, [Phrase(("unheard", "of"), (0,))]).phrases == []


def test_a_hidden_word_hides_every_phrase_that_it_is_part_of(texts: ConceptTexts) -> None:
    text = texts.text(TEXT, phrases_of(TEXT))
    linked = token_map(text.phrases, text.token_words)
    assert any(linked.values())
    for seed in range(20):
        rng = np.random.default_rng(seed)
        words = texts.hide_words(text.ids, range(1, 1 + text.words), 0.3, rng)
        both = texts.hide_phrases(text, words, 0.3, rng)
        forced = {text.phrase_positions[phrase] for position in words.positions for phrase in linked.get(position, ())}
        assert all(both.ids[place] == texts.mask_id for place in forced)
        assert not forced & set(both.positions)  # what was hidden for a word's sake is no label
        assert both.labels == [texts.vocabulary.classes[text.ids[place]] for place in both.positions]
        kept = set(text.phrase_positions) - forced - set(both.positions)
        assert all(both.ids[place] == text.ids[place] for place in kept)


def test_records_stay_as_they_are_over_epochs(texts: ConceptTexts) -> None:
    stream = concept_stream(texts)
    before = json.dumps([stream.source[index].annotation for index in range(4)])
    for epoch in range(3):
        for index in range(4):
            sample = stream.sample(index, np.random.default_rng((epoch, index)))
            stream.collate([[sample]], [np.random.default_rng(0)])
            assert sample.text.ids == texts.text(str(sample.rows[0].text), phrases_of(SENTENCES[index])).ids
    assert json.dumps([stream.source[index].annotation for index in range(4)]) == before


def test_the_same_seed_gives_the_same_batch(texts: ConceptTexts) -> None:
    first, again, other = batch_of(texts, 1), batch_of(texts, 1), batch_of(texts, 2)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["side_draws"], other["side_draws"])


def test_a_batch_has_labels_of_hidden_entries_alone(texts: ConceptTexts) -> None:
    batch = batch_of(texts, 0, masking={"words": 1.0, "tags": 0.0, "phrases": 0.0})
    rows, length = batch["text_ids"].shape
    assert batch["grounding_draws"].shape == (rows, length, 2)
    assert not (batch["masked_positions"][batch["mlm_labels"] == IGNORED]).any()
    assert (batch["tag_labels"] == IGNORED).all() and (batch["phrase_labels"] == IGNORED).all()
    told = batch["phrase_mask"] & (batch["text_ids"] != texts.mask_id)
    assert not told.any()  # every word is hidden, so every phrase is
    assert batch["group"].tolist() == [0, 0, 1, 1]


def test_tags_are_those_of_the_image_in_their_order_and_never_words_of_the_caption() -> None:
    annotation = {"caption": ["a dog"], "tags": ["cat", "dog", "cat", " "], "elems": [{"bb": [0, 0, 1, 1], "caption": "bus"}]}
    assert tags_of(annotation, "stored") == ("cat", "dog")
    assert tags_of(annotation, "elements") == ("bus",)
    assert tags_of(annotation, "none") == ()
    assert tags_of({"caption": ["a dog"]}, "stored") == tags_of({"caption": ["a dog"]}, "elements") == ()


@pytest.mark.parametrize(("source", "count"), [("grid", 4), ("boxes", 2), ("both", 5)])
def test_regions_are_boxes_and_cells(texts: ConceptTexts, source: str, count: int) -> None:
    still = {"crop": False, "flip": 0.0, "rand_augment": False}
    batch = batch_of(texts, 0, regions={"source": source, "grid": [2], "max": 5}, augmentation=still)
    assert batch["region_boxes"].shape == (4, count, 4) and batch["region_mask"].all()
    if source != "grid":  # pictures are 64 x 48
        torch.testing.assert_close(batch["region_boxes"][0, 0], torch.tensor([4 / 64, 4 / 48, 24 / 64, 24 / 48]))
    else:
        torch.testing.assert_close(batch["region_boxes"][0, 1], torch.tensor([0.5, 0.0, 1.0, 0.5]))


def test_features_come_from_a_file_in_the_published_layout(texts: ConceptTexts, tmp_path: Path) -> None:
    features = {f"r{i}": np.random.default_rng(i).random((i + 1, 2054), dtype=np.float32) for i in range(4)}
    lines = [f"{key}\t{len(rows)}\t{base64.b64encode(rows.tobytes()).decode()}\n".encode() for key, rows in features.items()]
    (tmp_path / "features.tsv").write_bytes(b"".join(lines))
    starts = np.cumsum([0, *(len(line) for line in lines)])[:-1]
    (tmp_path / "features.lineidx").write_text("".join(f"{start}\n" for start in starts))
    (tmp_path / "imageid2idx.json").write_text(json.dumps({key: place for place, key in enumerate(features)}))
    batch = batch_of(texts, 0, regions={"source": "features", "features": str(tmp_path / "features.tsv")})
    assert batch["regions"].shape == (4, 4, 2054) and batch["region_mask"].sum(dim=1).tolist() == [1, 2, 3, 4]
    np.testing.assert_array_equal(batch["regions"][3], features["r3"])
    with pytest.raises(BadRecord, match="no image nobody"):
        RegionFeatures(tmp_path / "features.tsv")["nobody"]
    with pytest.raises(UserError, match=r"other\.tsv"):
        RegionFeatures(tmp_path / "other.tsv")


def test_stored_phrases_are_taken_and_broken_ones_name_the_way_out() -> None:
    assert stored_phrases([[[["bus", "red"], [1, 0]]]], 0, 1) == [Phrase(("bus", "red"), (1, 0))]
    assert stored_phrases(None, 0, 1) is None
    for broken in ([], [["bus"]], 3):
        with pytest.raises(BadRecord, match=r"prepare_data\.py phrases"):
            stored_phrases(broken, 0, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tags": {"source": "none"}}, "predicts hidden tags"),
        ({"objectives": {"box": 1}}, "not an objective"),
        ({"regions": {"source": "features"}}, "set both or neither"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ConceptStream.model_validate({"shards": "-", "batch_size": 4, "phrases": {"vocabulary": "-"}} | changes)
