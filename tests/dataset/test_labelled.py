"""Labelled records: statements about two images, and classification."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.errors import BadRecord, UserError
from dataset.config import ClassAugmentation, ClassificationData, LanguageSplit, RecordKeys, StatementData
from dataset.streams.base import Sample, TextSide
from dataset.tasks.classification import classification_reader
from dataset.tasks.labelled import LabelledSet, LabelledTrain, collate_labelled
from dataset.tasks.nlvr import statement_reader
from dataset.transforms import decode_image, squash
from fake_records import encoded, picture, write_json

PLAIN = ClassAugmentation(crop_scale=None, flip=0.0, rand_augment=False)
FILES: dict[str, Any] = {"validation": "v", "test": "t", "batch_size": 2}


def write_lines(file: Path, records: list[dict[str, Any]]) -> str:
    file.write_text("\n".join(json.dumps(record) for record in records) + "\n")
    return str(file)


def statement(left: int, right: int, label: Any = "True", **more: Any) -> dict[str, Any]:
    return {"sentence": "A red circle.", "label": label, "images": [f"{left}.png", f"{right}.png"], **more}


def small(number: int) -> torch.Tensor:
    return torch.from_numpy(squash(decode_image(encoded(picture(number))), 32).transpose(2, 0, 1).copy())


def entailment(**settings: Any) -> ClassificationData:
    keys = RecordKeys(image="Flickr30K_ID", text="sentence2", label="gold_label")
    return ClassificationData(
        train="x", image_root="", labels=["contradiction", "neutral", "entailment"], skip_labels=["-"], keys=keys, **FILES, **settings
    )


def test_a_batch_has_the_first_images_of_all_statements_before_the_second_ones(folder: Path, text: TextSide) -> None:
    file = write_json(folder / "train.json", [statement(0, 1), statement(2, 0, "False")])
    config = StatementData(train=file, image_root=str(folder), augmentation=PLAIN, **FILES)
    stream = LabelledTrain(config, statement_reader, text, 32)
    samples: list[Sample] = [stream.sample(index, np.random.default_rng(index)) for index in range(2)]
    batch = stream.collate([samples], [np.random.default_rng(0)])
    assert torch.equal(batch["image"], torch.stack([small(number) for number in (0, 2, 1, 0)]))
    assert batch["label"].tolist() == [1, 0]
    held_out = LabelledSet("test", config.model_copy(update={"test": file}), statement_reader, 32)
    same = collate_labelled([held_out[0], held_out[1]], text.tokenizer, 24)
    for name in ("image", "label", "text_ids", "text_mask"):
        assert torch.equal(same[name], batch[name])
    assert same["index"].tolist() == [0, 1]


def test_each_image_of_a_pair_is_augmented_by_itself(folder: Path, text: TextSide) -> None:
    file = write_json(folder / "train.json", [statement(0, 0)])
    stream = LabelledTrain(StatementData(train=file, image_root=str(folder), **FILES), statement_reader, text, 32)
    first, second = stream.sample(0, np.random.default_rng(1)).images
    assert not np.array_equal(first, second)


def test_an_unreadable_image_is_a_bad_record_in_training_and_an_error_in_evaluation(folder: Path, text: TextSide) -> None:
    file = write_json(folder / "train.json", [statement(0, 7)])
    stream = LabelledTrain(StatementData(train=file, image_root=str(folder), **FILES), statement_reader, text, 32)
    with pytest.raises(BadRecord, match=r"train.json, record 0: the image .*7.png"):
        stream.sample(0, np.random.default_rng(0))
    with pytest.raises(UserError, match=r"train.json, record 0: .*7.png"):
        LabelledSet("validation", stream.config.model_copy(update={"validation": file}), statement_reader, 32)[0]


def test_nlvr2_records_are_found_by_their_identifiers(tmp_path: Path) -> None:
    file = write_lines(
        tmp_path / "nlvr2.json",
        [
            {"identifier": "train-10-2-1", "sentence": "s", "label": "False", "directory": 53},
            {"identifier": "dev-836-0-1", "sentence": "s", "label": "True"},
            {"identifier": "dev-836-3-1", "sentence": "s", "label": "True"},
        ],
    )
    first, second, third = statement_reader(tmp_path)(Path(file))
    assert first.images == ("train/53/train-10-2-img0.png", "train/53/train-10-2-img1.png")
    assert second.images == ("dev/dev-836-0-img0.png", "dev/dev-836-0-img1.png")
    assert (first.label, second.label, second.key) == (0, 1, "dev-836-0-1")
    assert second.group == third.group != first.group  # one sentence over several pairs


def test_marvl_records_name_a_folder_or_begin_with_it(tmp_path: Path) -> None:
    (tmp_path / "39-Panci").mkdir()
    (tmp_path / "39-Panci/39-1.jpg").touch()
    common = {"caption": "dua panci", "label": True, "left_img": "39-1.jpg", "right_img": "40-7.jpg"}
    file = write_lines(tmp_path / "marvl.jsonl", [{**common, "id": "id-0", "concept": "39-Panci"}, common])
    named, bare = statement_reader(tmp_path)(Path(file))
    assert named.images == ("39-Panci/39-1.jpg", "40/40-7.jpg")
    assert bare.images == ("39/39-1.jpg", "40/40-7.jpg")
    assert (named.key, bare.key, named.label, named.text) == ("id-0", "2", 1, "dua panci")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (statement(0, 1, "maybe"), r"statements.jsonl, line 2: label is 'maybe'; it must be True or False"),
        ({"sentence": "s", "images": ["a", "b"]}, r"line 2: label is missing; it has sentence, images"),
        ({"sentence": "s", "label": "True"}, r"line 2: images is missing, and there is no identifier"),
        ({"sentence": "s", "label": "True", "images": ["a"]}, r"line 2: images is \['a'\]; it must be two paths"),
        ({"sentence": "s", "label": "True", "identifier": "dev-1"}, r'line 2: identifier is "dev-1"; it must be split-set-pair-sentence'),
        ({"sentence": 5, "label": "True", "images": ["a", "b"]}, r"line 2: the statement is 5"),
        ({"caption": "s", "label": True, "left_img": "a"}, r"line 2: right_img is missing"),
    ],
)
def test_the_first_bad_statement_is_named(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    file = write_lines(tmp_path / "statements.jsonl", [statement(0, 1), record])
    with pytest.raises(UserError, match=message):
        statement_reader(tmp_path)(Path(file))


def test_broken_lines_are_named(tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").write_text('{"sentence": "s"}\n{"sentence": \n')
    with pytest.raises(UserError, match=r"broken.jsonl, line 2: not JSON"):
        statement_reader(tmp_path)(tmp_path / "broken.jsonl")
    with pytest.raises(UserError, match=r"nowhere.json does not exist"):
        statement_reader(tmp_path)(tmp_path / "nowhere.json")


def test_entailment_takes_the_hypothesis_and_leaves_out_what_has_no_label(tmp_path: Path) -> None:
    rows = [("entailment", "12"), ("-", "13"), ("neutral", "14.png")]
    records = [{"gold_label": label, "Flickr30K_ID": name, "sentence1": "p", "sentence2": "h", "pairID": name} for label, name in rows]
    config = entailment()
    found = classification_reader(config, "image_text")(tmp_path)(Path(write_lines(tmp_path / "dev.jsonl", records)))
    assert [(item.label, item.images, item.text, item.key) for item in found] == [
        (2, ("12.jpg",), "h", "12"),
        (1, ("14.png",), "h", "14.png"),
    ]
    assert found[1].where.endswith("dev.jsonl, line 3")


def test_another_label_is_an_error_that_names_the_key(tmp_path: Path) -> None:
    records = [{"gold_label": "entailmnt", "Flickr30K_ID": 1, "sentence2": "h"}]
    with pytest.raises(UserError, match=r"dev.json, record 0: gold_label is 'entailmnt'; it is one of contradiction, neutral, entailment"):
        classification_reader(entailment(), "image_text")(tmp_path)(Path(write_json(tmp_path / "dev.json", records)))


@pytest.mark.parametrize(("inputs", "keys"), [("image", {"image"}), ("text", {"text_ids", "text_mask"})])
def test_images_or_texts_alone_make_batches_without_the_other(folder: Path, text: TextSide, inputs: Any, keys: set[str]) -> None:
    file = write_json(folder / "train.json", [{"image": f"{i}.png", "text": "a red ring", "label": "b"} for i in range(2)])
    config = ClassificationData(train=file, image_root=str(folder), labels=["a", "b"], augmentation=PLAIN, **FILES)
    reader = classification_reader(config, inputs)
    stream = LabelledTrain(config, reader, text, 32)
    batch = stream.collate([[stream.sample(i, np.random.default_rng(i)) for i in range(2)]], [np.random.default_rng(0)])
    drawn = {"sample_ids", "group", "negative_draws", "text_bins"} if inputs == "text" else set()
    assert set(batch) == keys | drawn | {"label"}
    held_out = LabelledSet("test", config.model_copy(update={"test": file}), reader, 32)
    assert set(collate_labelled([held_out[0], held_out[1]], text.tokenizer, 24)) == keys | {"label", "index"}


def test_other_numbers_of_records_than_published_are_warned_of(folder: Path, text: TextSide, caplog: pytest.LogCaptureFixture) -> None:
    file = write_json(folder / "train.json", [statement(0, 1)])
    expected = {"train": 86373, "test": 1}
    config = StatementData.model_validate({**FILES, "train": file, "test": file, "image_root": str(folder), "expected": expected})
    with caplog.at_level(logging.WARNING):
        LabelledTrain(config, statement_reader, text, 32)
        LabelledSet("test", config, statement_reader, 32)
    assert caplog.messages == ["data.train: 1 records, the published data has 86,373; results do not compare with published ones"]


def test_a_language_has_a_file_and_images_of_its_own(folder: Path) -> None:
    file = write_json(folder / "id.json", [{"caption": "s", "label": False, "left_img": "0.png", "right_img": "1.png"}])
    languages = {"id": LanguageSplit(file=file, image_root=str(folder)), "sw": LanguageSplit(file=file)}
    config = StatementData(train="x", image_root="elsewhere", languages=languages, **FILES)
    assert LabelledSet("id", config, statement_reader, 32)[0]["label"] == 0
    with pytest.raises(UserError, match=r"elsewhere/0.png"):
        LabelledSet("sw", config, statement_reader, 32)[0]
