"""easy-VQA (pip package easy-vqa, MIT licence): 5,000 pictures of one shape with 48,248 questions, as question answering reads them.

    OUT/images/{train,test}/NUMBER.png
    OUT/vqa_{train,val,test}.json      [{question_id, question, answer, answer_type, image}], paths relative to OUT/images
    OUT/vqa_train_twins.json           training questions answered by yes or no, with another colour or shape, and so the other answer
    OUT/vqa_train_plain.json           those of the training questions and their twins that deny nothing
    OUT/vqa_answers.json               all answers
    OUT/retrieval_{train,val,test}.json  "a red circle" for images whose shape and colour follow from their questions; in training
                                       [{image, caption, image_id}], where image_id counts captions; else one image a caption
    OUT/tokenizer/                     WordPiece vocabulary of the training questions and answers
    OUT/meta.json                      request, counts, SHA-256 of each file; written last

Validation takes every tenth training image with all its questions; the test split is the package's own.
"""

import importlib.util
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from dataset.prepare.output import PreparedFolder, sha256_of, write_json
from dataset.prepare.raw import read_json
from dataset.tokenizers import train_wordpiece

logger = logging.getLogger(__name__)

PACKAGE = "easy_vqa"
VERSION = 4  # raise it when the same input comes to give other output
SPLITS = ("train", "val", "test")
ENTRIES = (
    "images",
    "tokenizer",
    "vqa_answers.json",
    "vqa_train_twins.json",
    "vqa_train_plain.json",
    *(f"{task}_{split}.json" for task in ("vqa", "retrieval") for split in SPLITS),
)
SHAPES = ("circle", "rectangle", "triangle")
COLORS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
TWIN = 100_000
"""More than the number of a question is that of its twin."""
HELD_OUT = 10
"""One image of so many is for validation."""
VOCABULARY = 400


@dataclass(frozen=True)
class EasyVqaRequest:
    """What is wanted."""

    out: Path
    root: Path | None = None
    """The package's folder `data`; None: that of the installed package."""
    overwrite: bool = False


def prepare_easy_vqa(request: EasyVqaRequest) -> dict[str, Any]:
    """Write the data set, or leave it where the same request wrote it.

    Returns:
        meta.json.

    Raises:
        UserError: the package is not installed, its files are not as expected, or the folder holds something else.
    """
    root = request.root or package_data()
    asked = {split: _questions(root, split) for split in ("train", "test")}
    description = {split: sha256_of(root / split / "questions.json") for split in asked}
    wanted = {"data_set": PACKAGE, "version": VERSION, "questions": description}
    folder = PreparedFolder(request.out, ENTRIES)
    if (done := folder.completed(wanted)) is not None:
        logger.info("%s: complete already", request.out)
        return done
    folder.check_free(request.overwrite)
    with folder as out:
        splits = {
            "train": [record for record in asked["train"] if record["image_id"] % HELD_OUT],
            "val": [record for record in asked["train"] if record["image_id"] % HELD_OUT == 0],
            "test": asked["test"],
        }
        more = twins(splits["train"])
        plain = [record for record in (*splits["train"], *more) if not _denies(record)]
        for split, records in {**splits, "train_twins": more, "train_plain": plain}.items():
            write_json(out / f"vqa_{split}.json", [{key: record[key] for key in record if key != "image_id"} for record in records])
        for split, records in splits.items():
            write_json(out / f"retrieval_{split}.json", _pairs(records, split == "train"))
        for split in asked:
            shutil.copytree(root / split / "images", out / "images" / split, ignore=shutil.ignore_patterns(".*"))
        answers = sorted({record["answer"] for record in asked["train"]})
        write_json(out / "vqa_answers.json", answers)
        train_wordpiece([*(record["question"] for record in splits["train"]), *answers], out / "tokenizer", VOCABULARY)
        counts = {f"{split}_questions": len(records) for split, records in splits.items()} | {"answers": len(answers)}
        return folder.finish({"request": wanted, "counts": counts})


def described(records: list[dict[str, Any]]) -> dict[str, str]:
    """By image, what its questions and answers say of it: "a red circle". Images whose shape or colour nobody asked about are left out."""
    known: dict[str, set[str]] = {}
    for record in records:
        answer, asked = record["answer"], [word for word in _words(record) if word in SHAPES or word in COLORS]
        if answer in ("yes", "no"):
            affirmed = (answer == "yes") != _denies(record)
            known.setdefault(record["image"], set()).update(asked if affirmed else ())
        else:
            known.setdefault(record["image"], set()).update([answer, *asked])
    looks = {image: (next(iter(words & {*COLORS}), None), next(iter(words & {*SHAPES}), None)) for image, words in known.items()}
    return {image: f"a {color} {shape}" for image, (color, shape) in looks.items() if color and shape}


def twins(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each yes or no about an image whose shape and colour are known: the same question of another colour or shape, which flips the
    answer. What is not there is asked for three times in four, so the wording alone is right that often; with their twins it says nothing.
    """
    captions, found = described(records), []
    for record in records:
        if record["answer"] not in ("yes", "no") or record["image"] not in captions:
            continue
        words = _words(record)
        (place,) = (number for number, word in enumerate(words) if word in SHAPES or word in COLORS)
        kind = SHAPES if words[place] in SHAPES else COLORS
        (true,) = {*kind} & {*captions[record["image"]].split()}
        others = [word for word in kind if word != true]
        words[place] = others[record["question_id"] % len(others)] if words[place] == true else true
        answer = "no" if record["answer"] == "yes" else "yes"
        found.append(record | {"question_id": TWIN + record["question_id"], "question": " ".join(words) + "?", "answer": answer})
    return found


def _denies(record: dict[str, Any]) -> bool:
    return bool({"not", "no"} & {*_words(record)})


def _words(record: dict[str, Any]) -> list[str]:
    return record["question"].rstrip("?").split()


def _pairs(records: list[dict[str, Any]], training: bool) -> list[dict[str, Any]]:
    """Pairs for retrieval. Images of one caption are of one sample in training, and else only the first of them is taken."""
    captions = described(records)
    number = {caption: place for place, caption in enumerate(sorted({*captions.values()}))}
    if training:
        return [{"image": image, "caption": caption, "image_id": number[caption]} for image, caption in captions.items()]
    first = {caption: image for image, caption in reversed(captions.items())}
    return [{"image": image, "caption": [caption]} for caption, image in sorted(first.items())]


def package_data() -> Path:
    """The folder with the data of the installed package, which is not imported.

    Raises:
        UserError: it is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError("easy_vqa: the package easy-vqa is not installed. Run pip install easy-vqa, or name its folder data with --root.")
    return Path(spec.origin).parent / "data"


def _questions(root: Path, split: str) -> list[dict[str, Any]]:
    """The questions of a split: [[question, answer, image number], ...] as records."""
    file = root / split / "questions.json"
    content = read_json(file)
    if not isinstance(content, list) or not content:
        raise UserError(f"{file} must hold a list of questions.")
    records = []
    for number, row in enumerate(content):
        if not (isinstance(row, list) and len(row) == 3 and all(isinstance(text, str) for text in row[:2]) and isinstance(row[2], int)):
            raise UserError(f"{file}, record {number}: {row!r} is not [question, answer, image number].")
        question, answer, image = row
        kind = "yes/no" if answer in ("yes", "no") else "other"
        record = {"question_id": number, "question": question, "answer": answer, "answer_type": kind}
        records.append(record | {"image": f"{split}/{image}.png", "image_id": image})
    return records
