"""Known data sets of labelled records: folders of classes, torchvision's, GLUE's."""

import inspect
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision.datasets

from common.errors import UserError
from common.labels import IGNORED
from dataset.config import ClassificationData
from dataset.streams.base import TextSide
from dataset.tasks.classification import class_names, classification_reader
from dataset.tasks.labelled import LabelledRecord, LabelledSet, LabelledTrain
from dataset.tasks.torchvision_sets import SETS
from dataset.tokenizers import token_lists
from fake_records import encoded, picture


def data(source: dict[str, Any], **settings: Any) -> ClassificationData:
    return ClassificationData.model_validate({"source": source, "batch_size": 2, **settings})


def records(source: dict[str, Any], split: str, inputs: Any = "image") -> list[LabelledRecord]:
    return classification_reader(data(source), inputs)(Path())(Path(split))


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Any]:
    for split, classes in {"train": ("ant", "bee", "cow"), "val": ("bee",)}.items():
        for number, name in enumerate(classes):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / f"{split}{number}.png").write_bytes(encoded(picture(number)))
    return {"kind": "imagefolder", "root": str(tmp_path)}


def test_a_class_keeps_its_number_in_splits_that_lack_others(folders: dict[str, Any], text: TextSide) -> None:
    assert class_names(data(folders)) == ["ant", "bee", "cow"]
    assert [(record.label, record.key) for record in records(folders, "validation")] == [(1, "val/bee/val0.png")]
    config = data(folders, augmentation={"crop_scale": None, "flip": 0, "rand_augment": False})
    stream = LabelledTrain(config, classification_reader(config, "image"), text, 32)
    batch = stream.collate([[stream.sample(2, np.random.default_rng(0))]], [np.random.default_rng(0)])
    assert (batch["label"].tolist(), tuple(batch["image"].shape)) == ([2], (1, 3, 32, 32))


def test_folders_that_are_missing_or_of_no_class_are_named(folders: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"/test is not a folder; it should hold a folder for each class"):
        records(folders, "test")
    (Path(folders["root"]) / "val/dog").mkdir()
    with pytest.raises(UserError, match=r"val/dog is of no class that train has"):
        records(folders, "validation")


@pytest.mark.parametrize("name", SETS)
def test_torchvision_has_every_set_and_takes_its_arguments(name: str) -> None:
    signature = inspect.signature(getattr(torchvision.datasets, SETS[name].class_name).__init__)
    for arguments in SETS[name].splits.values() or ({},):
        signature.bind(None, "root", **arguments)


@pytest.fixture
def mnist(tmp_path: Path) -> dict[str, Any]:
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    for split, count in (("train", 20), ("t10k", 4)):
        pixels, labels = np.full((count, 28, 28), 7, np.uint8), (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, count, 28, 28) + pixels.tobytes())
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels.tobytes())
    return {"kind": "torchvision", "name": "mnist", "root": str(tmp_path), "validation_share": 0.2}


def test_a_set_without_validation_holds_out_the_same_part_of_train(mnist: dict[str, Any]) -> None:
    train, validation, test = (records(mnist, split) for split in ("train", "validation", "test"))
    assert (len(train), len(validation), len(test)) == (16, 4, 4)
    kept, held = ({record.key for record in part} for part in (train, validation))
    assert not kept & held and held == {record.key for record in records(mnist, "validation")}
    assert all(record.label == int(record.key) % 10 for record in train)
    item = LabelledSet("test", data(mnist), classification_reader(data(mnist), "image"), 32)[1]
    assert item["label"] == 1 and item["images"][0].shape == (32, 32, 3) and (item["images"][0] == 7).all()
    assert len(class_names(data(mnist))) == 10


def test_a_set_that_is_not_there_names_its_folder_and_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"cifar10 is not under {tmp_path} as torchvision.datasets.CIFAR10 .*data.source.download to true"):
        records({"kind": "torchvision", "name": "cifar10", "root": str(tmp_path)}, "train")
    with pytest.raises(UserError, match=r"data.source.name is cifar11; it is one of aircraft, "):
        records({"kind": "torchvision", "name": "cifar11", "root": str(tmp_path)}, "train")


GLUE = {
    "CoLA/train.tsv": "gj04\t1\t\tA red ring.\nks08\t0\t*\tRing red a.\n",
    "CoLA/test.tsv": "index\tsentence\n5\tA ring.\n",
    "MNLI/dev_matched.tsv": "index\tsentence1\tsentence2\tlabel1\tgold_label\n0\ta ring\tred\tneutral\tcontradiction\n",
    "MNLI/test_mismatched.tsv": "index\tsentence1\tsentence2\n7\ta ring\tred\n",
    "STS-B/dev.tsv": 'index\tsentence1\tsentence2\tscore\n0\ta "ring\tred\t3.8\n1\ta ring\n',
    "RTE/dev.tsv": "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tmaybe\n",
}


@pytest.fixture
def glue(tmp_path: Path) -> str:
    for name, content in GLUE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    return str(tmp_path)


def of(root: str, task: str, split: str) -> list[LabelledRecord]:
    return records({"kind": "glue", "task": task, "root": root}, split, "text")


def test_official_files_of_glue_give_texts_labels_and_keys(glue: str) -> None:
    assert [(record.text, record.label) for record in of(glue, "cola", "train")] == [("A red ring.", 1), ("Ring red a.", 0)]
    secret = of(glue, "cola", "test")[0]
    assert (secret.text, secret.label, secret.key) == ("A ring.", IGNORED, "5")
    matched = of(glue, "mnli", "validation")[0]
    assert (matched.text, matched.second, matched.label) == ("a ring", "red", 2)
    assert of(glue, "mnli", "test_mismatched")[0].key == "7"


class Saved:
    """Stands for Hugging Face's datasets, which tests do without."""

    @staticmethod
    def load_from_disk(folder: str) -> dict[str, list[dict[str, Any]]]:
        assert folder.endswith("glue/mnli")
        row = {"premise": "a ring", "hypothesis": "red", "label": 2, "idx": 9}
        return {"validation_matched": [row], "test_mismatched": [{**row, "label": -1}]}


def test_what_datasets_saved_gives_the_same_records(monkeypatch: pytest.MonkeyPatch) -> None:
    source = {"kind": "glue", "task": "mnli", "root": "glue", "layout": "datasets"}
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="pip install datasets"):
        records(source, "validation", "text")
    monkeypatch.setitem(sys.modules, "datasets", Saved)
    found = records(source, "validation", "text")[0]
    assert (found.text, found.second, found.label) == ("a ring", "red", 2)
    assert [(record.label, record.key) for record in records(source, "test_mismatched", "text")] == [(IGNORED, "9")]
    with pytest.raises(UserError, match="glue/mnli holds no split train"):
        records(source, "train", "text")


def test_broken_files_of_glue_are_named(glue: str) -> None:
    with pytest.raises(UserError, match=r"STS-B/dev.tsv, line 3: 2 columns"):
        of(glue, "stsb", "validation")
    with pytest.raises(UserError, match=r"RTE/dev.tsv, line 2: the label is 'maybe'; it is one of entailment, not_entailment"):
        of(glue, "rte", "validation")
    with pytest.raises(UserError, match=r"QNLI/dev.tsv does not exist"):
        of(glue, "qnli", "validation")


def test_a_pair_is_one_row_of_tokens_and_the_longer_text_is_cut(text: TextSide) -> None:
    first, second = (token_lists(text.tokenizer, [part], 24)[0] for part in ("a red ring", "blue"))
    assert token_lists(text.tokenizer, [("a red ring", "blue")], 24) == [[*first, *second[1:]]]
    cut = token_lists(text.tokenizer, [("a red ring", "blue")], len(first) + len(second) - 2)
    assert cut == [[*first[:-2], first[-1], *second[1:]]]


def test_raw_texts_keep_what_captions_lose(glue: str) -> None:
    record = of(glue, "cola", "train")[0]
    source = {"kind": "glue", "task": "cola", "root": glue}
    assert record.row(data(source, raw_text=True)) == "A red ring."
    assert record.row(data(source)) == "a red ring"
