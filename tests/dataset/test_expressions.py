"""Referring expressions in REFER's layout, in the published JSON files, and with a detector's boxes."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.errors import UserError
from dataset.config import AugmentationConfig
from dataset.tasks.expressions import BASIC, EVALUATED, Expressions
from dataset.tasks.grounding import ExpressionPairs, GroundingSet, GroundingTrain
from dataset.tasks.grounding_config import GroundingData, ReferSettings
from fake_records import write_json

BOXES = {100: [0, 6, 16, 12], 101: [30.5, 6.25, 8, 8], 102: [4, 4, 40, 40]}


class Danger:
    def __reduce__(self) -> Any:
        return print, ("called",)


def reference(number: int, split: str, image: int, *sentences: str) -> dict[str, Any]:
    said = [{"sent": text, "raw": text, "tokens": text.split(), "sent_id": k} for k, text in enumerate(sentences)]
    about = {"ref_id": number, "ann_id": 100 + number, "image_id": image, "category_id": 1, "split": split}
    return about | {"file_name": f"COCO_train2014_{image:012d}_{number}.jpg", "sentences": said, "sent_ids": list(range(len(said)))}


@pytest.fixture
def refer(folder: Path) -> ReferSettings:
    """Two splits over pictures 0 and 1, which are 64 x 48 pixels."""
    refs = [reference(0, "train", 0, "Red ring!", "the ring"), reference(1, "testA", 0, "cup"), reference(2, "testB", 1, "dog on left")]
    # as Python 2 wrote it: protocol 0, with texts that need not be ASCII
    (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=0))
    images = [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 48} for i in range(2)]
    annotations = [{"id": number, "bbox": box, "segmentation": [[0, 0, 4, 0, 4, 4]]} for number, box in BOXES.items()]
    (folder / "instances.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": []}))
    return ReferSettings(folder=str(folder))


def test_every_sentence_of_a_split_is_a_record(folder: Path, refer: ReferSettings) -> None:
    [(first, record), (_, other)] = Expressions(("train",), folder, refer).records(EVALUATED)
    assert (record["text"], other["text"]) == ("Red ring!", "the ring")
    assert record["bbox"] == other["bbox"] == BOXES[100]
    assert (record["image"], record["width"], record["height"], record["split"], record["ref_id"]) == ("0.png", 64, 48, "train", 0)
    assert "refs(unc).p, train 0" in first
    item = GroundingSet(Expressions(("testA", "testB"), folder, refer), 32)[1]
    assert item["box"].tolist() == [4, 4, 40, 40]
    assert item["segmentation"] == [[0, 0, 4, 0, 4, 4]]


def test_published_files_take_their_boxes_by_reference(folder: Path, refer: ReferSettings) -> None:
    file = write_json(folder / "refcoco+_test.json", [{"image": "0.png", "text": "a cup", "ref_id": 1}])
    [(place, record)] = Expressions((file,), folder, refer).records(EVALUATED)
    assert (record["text"], record["bbox"], record["split"]) == ("a cup", BOXES[101], "testA")
    assert "record 0" in place
    write_json(folder / "refcoco+_test.json", [{"image": "0.png", "text": "a cup", "ref_id": 9}])
    with pytest.raises(UserError, match="reference 9"):
        Expressions((file,), folder, refer).records(EVALUATED)
    with pytest.raises(UserError, match="bbox is missing"):
        Expressions((file,), folder).records(EVALUATED)


def test_a_detectors_boxes_are_those_of_the_image(folder: Path, refer: ReferSettings) -> None:
    file = str(folder / "dets.json")
    (folder / "dets.json").write_text(json.dumps({"0": [[1, 2, 3, 4, 0.9], [5, 6, 7, 8]], "581857": [[0, 0, 9, 9]]}))
    [(_, record)] = Expressions(("testA",), folder, refer, file).records(EVALUATED)
    assert record["candidates"] == [[1, 2, 3, 4], [5, 6, 7, 8]]
    named = write_json(folder / "named.json", [{"image": "train2014/COCO_train2014_000000581857.jpg", "text": "x"}])
    [(_, record)] = Expressions((named,), folder, None, file).records(BASIC)
    assert record["candidates"] == [[0, 0, 9, 9]]
    with pytest.raises(UserError, match=r"no boxes .* of image 1"):
        Expressions(("testB",), folder, refer, file).records(EVALUATED)


def test_boxes_that_records_bring_under_another_name_are_candidates(folder: Path) -> None:
    file = write_json(folder / "vlue.json", [{"image": "0.png", "text": "x", "dets": [[1, 2, 3, 4, 0.5]]}])
    [(_, record)] = Expressions((file,), folder).records(BASIC)
    assert record["candidates"] == [[1, 2, 3, 4]]


def test_training_with_boxes_reads_refer_and_training_without_reads_no_box(folder: Path, refer: ReferSettings, text) -> None:
    def data(**more: Any) -> GroundingData:
        plain = AugmentationConfig(crop_scale=None, flip=1.0, careful_flip=True, rand_augment=False)
        settings = {"validation": "testA", "test": ["testA", "testB"], "image_root": str(folder), "batch_size": 2}
        return GroundingData.model_validate(settings | {"image_augmentation": plain} | more)

    sample = GroundingTrain(data(train="train", refer=refer), text, 32).sample(0, np.random.default_rng(0))
    assert sample.rows[0].box is not None
    pairs = [{"image": "0.png", "text": "a ring"}, {"image": "0.png", "text": "the left cup"}, {"image": "1.png", "text": "it's"}]
    stream = ExpressionPairs(data(train=write_json(folder / "pairs.json", pairs), punctuation="delete"), text, 32)
    samples = [stream.sample(i, np.random.default_rng(0)) for i in range(3)]
    assert [sample.rows[0].box for sample in samples] == [None] * 3
    assert samples[2].rows[0].text == "its"
    assert (samples[0].image[:, ::-1] == samples[1].image).all()  # what names a side is not mirrored
    batch = stream.collate([samples], [np.random.default_rng(0)])
    assert batch["sample_ids"].tolist() == [0, 0, 1]
    assert not {"target_box", "is_image"} & set(batch)
    assert batch["image"].dtype == torch.uint8


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps([Danger()]), "refused: it holds more than lists"),
        (b"no pickle", "refused"),
        (pickle.dumps({}), "must hold a list"),
        (pickle.dumps([{"ref_id": 1}]), "reference 0: ann_id, image_id"),
        (pickle.dumps([reference(7, "train", 0, "x")]), 'no split "val". It has train'),
    ],
)
def test_other_pickles_are_refused_and_nothing_in_them_is_called(folder, refer, capsys, content, reason) -> None:
    (folder / "refs(unc).p").write_bytes(content)
    with pytest.raises(UserError, match=reason):
        Expressions(("val",), folder, refer).records(EVALUATED)
    assert capsys.readouterr().out == ""


def test_missing_files_are_named(folder: Path, refer: ReferSettings) -> None:
    (folder / "instances.json").unlink()
    with pytest.raises(UserError, match=r"instances.json does not exist"):
        Expressions(("train",), folder, refer).records(EVALUATED)
    with pytest.raises(UserError, match=r"refs\(google\).p does not exist"):
        Expressions(("train",), folder, refer.model_copy(update={"split_by": "google"})).records(EVALUATED)
