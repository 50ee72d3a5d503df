"""scripts/prepare_data.py: COCO's layout becomes both streams, the retrieval lists and a tokenizer."""

import gzip
import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dataset.prepare import coco
from dataset.shards import ShardSource
from dataset.tokenizers import load_tokenizer

SCRIPT = Path(__file__).parents[2] / "scripts" / "prepare_data.py"
COCO_MINI = Path(__file__).parents[2].parent / "shared" / "data" / "coco_mini"


@pytest.fixture
def prepare_any(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Run the script in this process: (exit status, its output)."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))

    def run(*arguments: str | Path) -> tuple[int, str]:
        import prepare_data  # pyright: ignore[reportMissingImports]

        status = prepare_data.main(list(map(str, arguments)))
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    return run


@pytest.fixture
def prepare(prepare_any):
    """Prepare a set in COCO's layout in this process."""
    return lambda *arguments: prepare_any("coco", *arguments, "--workers", "0")


BOXES = {
    0: [([10.0, 10.0, 40.0, 20.0], 1, 0), ([-5.0, 30.0, 20.0, 30.0], 2, 0), ([0.0, 0.0, 60.0, 40.0], 1, 1), ([20.0, 20.0, 0.4, 9.0], 2, 0)],
    1: [([80.0, 10.0, 10.0, 10.0], 2, 0)],
    2: [],
}
"""Of each image: (box, category, is a crowd). Images are 60 x 40 pixels."""


def write_coco(root: Path, splits: tuple[str, ...] = ("train2017", "val2017")) -> Path:
    (root / "annotations").mkdir(parents=True)
    for number, split in enumerate(splits):
        (root / split).mkdir()
        ids = [100 * number + image for image in range(3)]
        for image in ids:
            pixels = np.random.default_rng(image).integers(0, 256, (40, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / f"{image:012d}.jpg")
        images = [{"id": image, "file_name": f"{image:012d}.jpg", "width": 60, "height": 40} for image in ids]
        captions = [{"image_id": image, "caption": f"a photo of dog number {image}, take {k}\n"} for k in range(2) for image in ids]
        objects = [
            {"image_id": image, "bbox": box, "category_id": category, "iscrowd": crowd}
            for image in ids
            for box, category, crowd in BOXES[image % 100]
        ]
        categories = [{"id": 1, "name": "dog"}, {"id": 2, "name": "traffic light"}]
        (root / f"annotations/captions_{split}.json").write_text(json.dumps({"images": images, "annotations": captions}))
        instances = {"images": images, "annotations": objects, "categories": categories}
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(instances))
    return root


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_coco_becomes_both_streams_and_the_retrieval_lists(tmp_path: Path, prepare: Any):
    root, out = write_coco(tmp_path / "coco"), tmp_path / "out"
    status, text = prepare("--root", root, "--out", out)
    assert status == 0, text
    captions = [[f"a photo of dog number {image}, take {k}" for k in range(2)] for image in range(3)]
    images = ShardSource(str(out / "shards/images-*.tar"))
    assert [images[i].annotation for i in range(len(images))] == [{"caption": captions[i]} for i in range(3)]
    assert images[1].image == (root / "train2017/000000000001.jpg").read_bytes() and images[1].key == "000000000001"
    regions = ShardSource(str(out / "shards/regions-*.tar"))
    assert len(regions) == 1
    elements = [{"bb": [10.0, 10.0, 40.0, 20.0], "caption": "dog"}, {"bb": [0, 30.0, 15.0, 10.0], "caption": "traffic light"}]
    assert regions[0].annotation == {"elems": elements, "caption": captions[0]}
    train = read(out / "retrieval_train.json")
    assert train[3] == {"image": "train2017/000000000001.jpg", "caption": captions[1][1], "image_id": 1} and len(train) == 6
    assert read(out / "retrieval_val.json")[0]["image"] == "val2017/000000000100.jpg"
    assert read(out / "retrieval_train_gallery.json")[2] == {"image": "train2017/000000000002.jpg", "caption": captions[2]}
    assert all((root / row["image"]).is_file() for row in train)
    counts = read(out / "meta.json")["counts"]
    assert (counts["train2017_objects"], counts["train2017_crowds_left_out"], counts["train2017_boxes_left_out"]) == (2, 1, 2)
    assert counts["train2017_images_without_objects"] == 2


def test_meta_holds_the_hash_of_every_file(tmp_path: Path, prepare: Any):
    root, out = write_coco(tmp_path / "coco"), tmp_path / "out"
    prepare("--root", root, "--out", out)
    hashes = read(out / "meta.json")["sha256"]
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} - {"meta.json"}
    assert set(hashes) == files and "shards/regions-000000.tar" in files
    assert all(hashlib.sha256((out / name).read_bytes()).hexdigest() == digest for name, digest in hashes.items())
    shutil.move(root, tmp_path / "moved")
    prepare("--root", tmp_path / "moved", "--out", tmp_path / "again")
    assert (tmp_path / "again/meta.json").read_bytes() == (out / "meta.json").read_bytes()


def test_resize_shrinks_images_and_boxes(tmp_path: Path, prepare: Any):
    root, out = write_coco(tmp_path / "coco"), tmp_path / "out"
    assert prepare("--root", root, "--out", out, "--resize", "20")[0] == 0
    record = ShardSource(str(out / "shards/regions-*.tar"))[0]
    assert Image.open(io.BytesIO(record.image or b"")).size == (30, 20)
    assert record.annotation["elems"][0]["bb"] == [5, 5, 20, 10]


def test_a_tokenizer_is_trained_on_the_texts_or_taken_over(tmp_path: Path, prepare: Any):
    root, out = write_coco(tmp_path / "coco"), tmp_path / "out"
    prepare("--root", root, "--out", out)
    trained = load_tokenizer(out / "tokenizer")
    assert trained.tokenize("photo of traffic")[0] == "photo"
    (out / "tokenizer/pytorch_model.bin").write_bytes(b"weights")
    status, text = prepare("--root", root, "--out", tmp_path / "other", "--vocab", out / "tokenizer")
    assert status == 0, text
    assert load_tokenizer(tmp_path / "other/tokenizer").get_vocab() == trained.get_vocab()
    assert not (tmp_path / "other/tokenizer/pytorch_model.bin").exists()
    status, text = prepare("--root", root, "--out", tmp_path / "third", "--vocab", tmp_path / "coco/annotations")
    assert status == 2 and "annotations" in text and not (tmp_path / "third/meta.json").exists()


def test_the_same_request_is_done_once_and_another_one_is_refused(tmp_path: Path, prepare: Any, monkeypatch: pytest.MonkeyPatch):
    root, out = write_coco(tmp_path / "coco"), tmp_path / "out"
    prepare("--root", root, "--out", out)
    with monkeypatch.context() as patch:
        patch.setattr(coco, "pack", None)  # it would be called if anything was written
        assert prepare("--root", root, "--out", out)[0] == 0
    status, text = prepare("--root", root, "--out", out, "--resize", "20")
    assert status == 2 and "--overwrite" in text
    (out / "shards/stale.txt").touch()
    assert prepare("--root", root, "--out", out, "--resize", "20", "--overwrite")[0] == 0
    assert not (out / "shards/stale.txt").exists()
    with (out / "retrieval_val.json").open("a") as file:
        file.write(" ")
    assert prepare("--root", root, "--out", out, "--resize", "20")[0] == 2  # complete no longer


def test_a_run_that_stops_midway_leaves_the_folder_as_it_was(tmp_path: Path, prepare: Any, monkeypatch: pytest.MonkeyPatch):
    root, out = write_coco(tmp_path / "coco"), tmp_path / "out"
    prepare("--root", root, "--out", out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(coco, "provide_tokenizer", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare("--root", root, "--out", out, "--resize", "20", "--overwrite")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_undecodable_and_missing_images_are_counted_and_stop_the_run_above_the_stated_share(tmp_path: Path, prepare: Any):
    root, out = write_coco(tmp_path / "coco"), tmp_path / "out"
    (root / "train2017/000000000001.jpg").write_bytes(b"no image")
    (root / "train2017/000000000002.jpg").unlink()
    status, text = prepare("--root", root, "--out", out)
    assert status == 2 and "2 of 4 records are bad" in text and not (out / "meta.json").exists()
    named = (out / "bad_records.txt").read_text()
    assert "images: 000000000001: the image cannot be decoded" in named and "000000000002.jpg" in named
    assert prepare("--root", root, "--out", out, "--max_bad", "0.5")[0] == 0
    counts = read(out / "meta.json")["counts"]
    assert counts["images_bad_records"] == 2 and counts["train2017_images_missing"] == 1
    assert {row["image_id"] for row in read(out / "retrieval_train.json")} == {0, 1}


def spoil(root: Path, what: str) -> None:
    captions, instances = root / "annotations/captions_train2017.json", root / "annotations/instances_train2017.json"
    if what == "no root":
        shutil.rmtree(root)
    elif what == "no annotations":
        instances.unlink()
    elif what == "cut annotations":
        captions.write_text(captions.read_text()[:100])
    elif what == "other layout":
        captions.write_text("[]")
    elif what == "no image folder":
        shutil.rmtree(root / "train2017")
    elif what == "no validation images":
        shutil.rmtree(root / "val2017")
        (root / "val2017").mkdir()
    else:
        content = read(instances)
        if what == "unknown category":
            content["annotations"][0]["category_id"] = 7
        else:
            del content["annotations"][0]["bbox"]
        instances.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("no root", "no such folder; --root is COCO's folder"),
        ("no annotations", "instances_train2017.json: no such file; "),
        ("cut annotations", "captions_train2017.json: is not valid JSON"),
        ("other layout", 'captions_train2017.json: has no list "annotations"'),
        ("no image folder", "train2017: no such folder"),
        ("no validation images", "none of the 3 captioned images is there, the first is val2017/000000000100.jpg"),
        ("unknown category", "annotation of image 0 has category 7"),
        ("no box", "annotations[0] has no bbox"),
    ],
)
def test_wrong_input_is_one_clear_line(tmp_path: Path, prepare: Any, what: str, reason: str):
    root = write_coco(tmp_path / "coco")
    spoil(root, what)
    status, text = prepare("--root", root, "--out", tmp_path / "out")
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    assert status == 2 and len(errors) == 1 and reason in errors[0] and "Traceback" not in text
    assert not (tmp_path / "out/meta.json").exists()


def test_a_set_without_a_validation_split(tmp_path: Path, prepare: Any):
    root = write_coco(tmp_path / "coco", ("mine",))
    assert prepare("--root", root, "--out", tmp_path / "out", "--split", "mine", "--val_split", "none")[0] == 0
    assert not (tmp_path / "out/retrieval_val.json").exists()
    assert len(ShardSource(str(tmp_path / "out/shards/images-*.tar"))) == 3


@pytest.mark.skipif(not COCO_MINI.is_dir(), reason="the slice of COCO is not beside this clone")
def test_real_coco_photographs_are_prepared(tmp_path: Path, prepare: Any):
    status, text = prepare("--root", COCO_MINI, "--out", tmp_path, "--resize", "64")
    assert status == 0, text
    counts = read(tmp_path / "meta.json")["counts"]
    assert (counts["images_samples"], counts["retrieval_train"], counts["retrieval_val"], counts["images_bad_records"]) == (80, 400, 79, 0)
    assert counts["train2017_objects"] + counts["train2017_crowds_left_out"] + counts["train2017_boxes_left_out"] == 739
    regions = ShardSource(str(tmp_path / "shards/regions-*.tar"))
    assert len(regions) == counts["regions_samples"]
    for index in range(0, len(regions), 9):
        width, height = Image.open(io.BytesIO(regions[index].image or b"")).size
        assert min(width, height) == 64
        for element in regions[index].annotation["elems"]:
            x, y, w, h = element["bb"]
            assert x >= 0 and y >= 0 and w >= 1 and h >= 1 and x + w <= width + 0.02 and y + h <= height + 0.02


def write_easy_vqa(root: Path) -> Path:
    """A folder as the package easy-vqa has it."""
    for split, images in (("train", 20), ("test", 3)):
        (root / split / "images").mkdir(parents=True)
        for image in range(images):
            Image.new("RGB", (8, 8), (image, 0, 0)).save(root / split / "images" / f"{image}.png")
        asked = [
            [f"is there a {shape}?", answer, image] for image in range(images) for shape, answer in (("circle", "yes"), ("ring", "no"))
        ]
        (root / split / "questions.json").write_text(json.dumps(asked))
    return root


def test_easy_vqa_becomes_questions_with_images_and_a_tokenizer(tmp_path: Path, prepare_any) -> None:
    out = tmp_path / "out"
    status, said = prepare_any("easy_vqa", "--root", write_easy_vqa(tmp_path / "data"), "--out", out)
    assert status == 0, said
    splits = {split: json.loads((out / f"vqa_{split}.json").read_text()) for split in ("train", "val", "test")}
    assert {split: len(records) for split, records in splits.items()} == {"train": 36, "val": 4, "test": 6}
    images = {split: {record["image"] for record in records} for split, records in splits.items()}
    assert not images["train"] & images["val"]
    assert all((out / "images" / image).is_file() for found in images.values() for image in found)
    assert json.loads((out / "vqa_answers.json").read_text()) == ["no", "yes"]
    assert load_tokenizer(out / "tokenizer").tokenize("is there a ring") == ["is", "there", "a", "ring"]
    assert prepare_any("easy_vqa", "--root", tmp_path / "data", "--out", out)[0] == 0  # the same again is left as it is


def test_easy_vqa_without_its_package_says_what_to_install(tmp_path: Path, prepare_any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    status, said = prepare_any("easy_vqa", "--out", tmp_path / "out")
    assert status == 2
    assert "pip install easy-vqa" in said


def pairs_in(out: Path) -> list[dict[str, Any]]:
    source = ShardSource(str(out / "shards/parallel-*.tar"), need_image=False)
    return [source[number].annotation for number in range(len(source))]


def test_two_files_of_sentences_become_pairs(tmp_path: Path, prepare_any) -> None:
    (tmp_path / "a.de").write_text("Hallo Welt\n\nOK\nGuten Tag \n", encoding="utf-8")
    (tmp_path / "a.en").write_text("hello world\nlost\nOK\ngood day\n", encoding="utf-8")
    files = ("--source", tmp_path / "a.de", "--target", tmp_path / "a.en", "--out", tmp_path / "out")
    status, said = prepare_any("parallel", *files, "--languages", "de", "en", "--max_bad", "0.3")
    assert status == 0, said
    assert pairs_in(tmp_path / "out") == [
        {"source": "Hallo Welt", "target": "hello world", "languages": ["de", "en"]},
        {"source": "Guten Tag", "target": "good day", "languages": ["de", "en"]},
    ]
    assert "1  untranslated" in said and "1  without a pair" in said
    status, said = prepare_any("parallel", *files)  # another request
    assert status == 2 and "add --overwrite" in said
    status, said = prepare_any("parallel", *files, "--overwrite")
    assert status == 2 and "1 of 4 lines hold no pair, more than max_bad=0.05. The first: line 2 is empty in one file" in said
    assert len(pairs_in(tmp_path / "out")) == 2  # what was there is left as it was


def test_columns_of_a_packed_file_become_pairs_above_a_score(tmp_path: Path, prepare_any) -> None:
    with gzip.open(tmp_path / "pairs.tsv.gz", "wt", encoding="utf-8") as file:
        file.write("1.2\tein Haus\ta house\n1.01\tein Baum\ta tiger\n1.1\t猫\ta cat\n")
    options = ("--columns", "3", "2", "--score", "1", "1.04", "--max_samples", "1")
    status, said = prepare_any("parallel", "--tsv", tmp_path / "pairs.tsv.gz", *options, "--out", tmp_path / "out")
    assert status == 0, said
    assert pairs_in(tmp_path / "out") == [{"source": "a house", "target": "ein Haus"}, {"source": "a cat", "target": "猫"}]
    assert "1  below score" in said
    assert len(list((tmp_path / "out/shards").glob("*.tar"))) == 2


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path, prepare_any) -> None:
    (tmp_path / "long").write_text("a\nb\nc\n")
    (tmp_path / "short").write_text("x\ny\n")
    status, said = prepare_any("parallel", "--source", tmp_path / "long", "--target", tmp_path / "short", "--out", tmp_path / "out")
    assert status == 2 and f"{tmp_path / 'short'}: ends after 2 lines" in said
    assert not (tmp_path / "out" / "meta.json").exists()
    status, said = prepare_any("parallel", "--source", tmp_path / "long", "--out", tmp_path / "out")
    assert status == 2 and "give --source and --target" in said


def test_phrases_and_tags_are_added_to_shards(tmp_path: Path, prepare, prepare_any) -> None:
    prepare("--root", write_coco(tmp_path / "coco"), "--out", tmp_path / "prepared", "--max_bad", "1.0")
    shards, tokenizer = f"{tmp_path}/prepared/shards/regions-*.tar", tmp_path / "prepared" / "tokenizer"
    arguments = ("phrases", "--shards", shards, "--tokenizer", tokenizer, "--out", tmp_path / "concepts", "--min_count", "2")
    status, said = prepare_any(*arguments)
    assert status == 0 and "vocabulary phrases" in said
    source = ShardSource([f"{tmp_path}/concepts/shards/concepts-*.tar"])
    names = {element["caption"] for element in source[0].annotation["elems"]}
    assert set(source[0].annotation["tags"]) == names
    assert [["photo", "of", "number"], [1, 2, 4]] in source[0].annotation["phrases"][0]
    assert ["photo", "of", "number"] in json.loads((tmp_path / "concepts" / "phrases.json").read_text()).values()
    assert prepare_any(*arguments)[0] == 0  # the same again is left as it is
    assert prepare_any(*arguments[:-1], "99", "--out", tmp_path / "none")[0] == 2  # no phrase is that frequent
    assert "needs --tagger" in prepare_any(*arguments, "--tags", "classifier")[1]
