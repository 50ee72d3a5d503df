"""Question answering data: every published layout, errors that name the record, and batches."""

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from transformers import PreTrainedTokenizerBase

from common.errors import UserError
from dataset.config import AugmentationConfig
from dataset.streams.base import TextSide
from dataset.tasks.vqa import VqaSet, VqaTrain, answer_tokens, collate_vqa
from dataset.tasks.vqa_config import VqaData
from dataset.tasks.vqa_files import Question, read_answers, read_questions
from dataset.tokenizers import load_tokenizer, token_lists

STILL = AugmentationConfig(crop_scale=None, flip=0.0, rand_augment=False)


@pytest.fixture(scope="module")
def tokenizer(small_data: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(small_data / "tokenizer")


def write(path: Path, content: Any) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in content) if path.suffix == ".jsonl" else json.dumps(content))
    return path


def picture(value: int, size: int = 8) -> bytes:
    out = BytesIO()
    Image.new("RGB", (size, size), (value, value, value)).save(out, "PNG")
    return out.getvalue()


LAYOUTS: dict[str, tuple[str, Any, list[Question]]] = {
    "vqa v2": (
        "q.json",
        [{"question_id": 9, "question": "What?", "image": "a.jpg", "dataset": "vqa", "answer": ["no"] * 7 + ["yes"] * 3}],
        [Question(9, "What?", "a.jpg", ("no",) * 7 + ("yes",) * 3, (("no", 0.7), ("yes", 0.3)), "vqa")],
    ),
    "visual genome": (
        "q.json",
        [{"question_id": 9, "question": "What?", "image": "a.jpg", "dataset": "vg", "answer": "red"}],
        [Question(9, "What?", "a.jpg", ("red",), (("red", 0.5),), "vg")],
    ),
    "server": (
        "q.json",
        [{"question_id": 9, "question": "What?", "image": "a.jpg", "dataset": "vqa"}],
        [Question(9, "What?", "a.jpg", (), (), "vqa")],
    ),
    "own": (
        "q.json",
        [{"question": "What?", "image": "a.jpg", "answer": "red"}],
        [Question(0, "What?", "a.jpg", ("red",), (("red", 1.0),))],
    ),
    "gqa": (
        "q.json",
        [{"question_id": "7", "sent": "What?", "img_id": 2375429, "label": {"red": 1.0, "dark red": 0.3}}],
        [Question("7", "What?", "2375429.jpg", ("red", "dark red"), (("red", 0.5), ("dark red", 0.5)), "gqa")],
    ),
    "xgqa": (
        "q.json",
        {"7": {"question": "Was?", "imageId": "12", "answer": "red"}},
        [Question("7", "Was?", "12.jpg", ("red",), (("red", 1.0),), "gqa")],
    ),
    "msrvtt": (
        "q.jsonl",
        [{"video_id": 7010, "question": "What?", "answer": "ball"}],
        [Question(0, "What?", "video_7010.json", ("ball",), (("ball", 1.0),), "video")],
    ),
    "msvd": (
        "q.jsonl",
        [{"video_id": "vid1", "question": "What?", "answer": "ball"}],
        [Question(0, "What?", "vid1.json", ("ball",), (("ball", 1.0),), "video")],
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_published_layout_is_read(layout: str, tmp_path: Path) -> None:
    name, content, expected = LAYOUTS[layout]
    assert read_questions(write(tmp_path / name, content)) == expected


GOOD = {"question": "What?", "image": "a.jpg", "answer": "red"}


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("q.json", [GOOD, {"question": "What?"}], r"q\.json, record 1: image is missing"),
        ("q.json", [GOOD, GOOD | {"answer": 3}], r"q\.json, record 1: answer is 3, neither a text nor a list of texts"),
        ("q.json", [GOOD | {"question": ""}], r"q\.json, record 0: question is '', not a text"),
        ("q.json", [{"text": "What?"}], r"q\.json, record 0: none of the known layouts"),
        ("q.json", {"5": {"question": "What?", "imageId": 1}, "8": {"imageId": 1}}, r"q\.json, record 8: question is missing"),
        ("q.json", [{"sent": "What?", "img_id": 1, "label": "red"}], r"q\.json, record 0: label is str"),
        ("q.jsonl", [{"video_id": 1, "question": "What?"}, {"video_id": 1}], r"q\.jsonl, line 2: question is missing"),
        ("q.json", [], "must hold at least one question"),
    ],
)
def test_the_first_bad_record_is_named(name: str, content: Any, problem: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=problem):
        read_questions(write(tmp_path / name, content))


def test_answers_are_a_list_or_a_numbering(tmp_path: Path) -> None:
    assert read_answers(write(tmp_path / "list.json", ["no", "yes"])) == ["no", "yes"]
    assert read_answers(write(tmp_path / "ans2label.json", {"yes": 1, "no": 0})) == ["no", "yes"]
    with pytest.raises(UserError, match="numbers are not 0 to 1"):
        read_answers(write(tmp_path / "odd.json", {"yes": 1, "no": 2}))
    with pytest.raises(UserError, match="answer 1: 3 is not a text"):
        read_answers(write(tmp_path / "odd.json", ["yes", 3]))


def test_other_counts_than_the_published_ones_are_told(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, caplog: pytest.LogCaptureFixture
) -> None:
    records = [GOOD | {"dataset": name} for name in ("vqa", "vqa", "vg")]
    config = settings(tmp_path, records, test={"de": str(tmp_path / "questions.json")}, expected={"train": 2, "test/de": 9666})
    VqaTrain(config, TextSide(tokenizer, 20, masking=None), 8, frames=None)
    assert not caplog.records  # those of Visual Genome do not count
    VqaSet("test/de", config, 8, frames=None)
    assert "questions.json: 2 questions, the published data has 9,666" in caplog.text
    with pytest.raises(ValidationError, match="tests/de is neither a split"):
        settings(tmp_path, records, expected={"tests/de": 1})


def settings(tmp_path: Path, records: list[dict[str, Any]], **changes: Any) -> VqaData:
    file = str(write(tmp_path / "questions.json", records))
    plain = {"train": file, "test": file, "image_root": str(tmp_path), "batch_size": 2, "augmentation": STILL}
    return VqaData.model_validate(plain | changes)


def records_of(tmp_path: Path) -> list[dict[str, Any]]:
    (tmp_path / "a.png").write_bytes(picture(10))
    (tmp_path / "vg").mkdir(exist_ok=True)
    (tmp_path / "vg" / "a.png").write_bytes(picture(200))
    return [
        {"question": "Is there a red circle?", "image": "a.png", "dataset": "vqa", "answer": ["yes"] * 8 + ["no"] * 2},
        {"question": "What shape?", "image": "a.png", "dataset": "vg", "answer": "square"},
        {"question": "secret?", "image": "a.png", "dataset": "vqa"},
    ]


def test_a_batch_holds_every_answer_with_its_question_and_weight(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    config = settings(tmp_path, records_of(tmp_path), image_roots={"vg": str(tmp_path / "vg")})
    stream = VqaTrain(config, TextSide(tokenizer, 20, masking=None), 8, frames=None)
    assert len(stream) == 2  # a question without answers teaches nothing
    rngs = [np.random.default_rng(index) for index in range(2)]
    batch = stream.collate([[stream.sample(index, rng) for index, rng in enumerate(rngs)]], rngs[:1])
    assert batch["image"].shape == (2, 3, 8, 8)
    assert batch["image"].amax(dim=(1, 2, 3)).tolist() == [10, 200]  # the second from its own folder
    assert batch["answer_owner"].tolist() == [0, 0, 1]
    torch.testing.assert_close(batch["answer_weights"], torch.tensor([0.8, 0.2, 0.5]))
    assert tokenizer.batch_decode(batch["answer_ids"].tolist(), skip_special_tokens=True) == ["yes", "no", "square"]
    assert batch["answer_ids"][:, 0].tolist() == [tokenizer.cls_token_id] * 3
    assert batch["text_ids"].shape == batch["text_mask"].shape
    labelled = VqaTrain(config, stream.text, 8, frames=None, labels={"square": 0, "yes": 1})
    samples = [labelled.sample(index, rng) for index, rng in enumerate(rngs)]
    assert labelled.collate([samples], rngs[:1])["answer_labels"].tolist() == [1, -100, 0]


def test_an_image_is_not_mirrored_where_its_answer_names_a_side(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    image[:, :4] = 255
    Image.fromarray(image).save(tmp_path / "a.png")
    always = AugmentationConfig(crop_scale=None, flip=1.0, careful_flip=True, rand_augment=False)
    for answer, mirrored in (("left", False), ("red", True)):
        config = settings(tmp_path, [{"question": "Which?", "image": "a.png", "answer": answer}]).model_copy(
            update={"augmentation": always}
        )
        stream = VqaTrain(config, TextSide(tokenizer, 20, masking=None), 8, frames=None)
        pixels = stream.sample(0, np.random.default_rng(0)).image
        assert (pixels[0, 0, 0] == 0) == mirrored


def test_frames_of_a_clip_are_spread_over_it_and_changed_alike(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    write(tmp_path / "vid.json", [base64.b64encode(picture(10 * index)).decode() for index in range(6)])
    file = write(tmp_path / "q.jsonl", [{"video_id": "vid", "question": "What?", "answer": "ball"}])
    config = settings(tmp_path, records_of(tmp_path))
    held_out = VqaSet("test", config.model_copy(update={"test": str(file)}), 8, frames=3)
    assert held_out[0]["image"][:, 0, 0, 0].tolist() == [0, 20, 40]
    batch = collate_vqa([held_out[0], held_out[0]], tokenizer, 20)
    assert batch["image"].shape == (2, 3, 3, 8, 8)
    with pytest.raises(UserError, match=r"model\.vision\.frames is not set"):
        VqaSet("test", config.model_copy(update={"test": str(file)}), 8, frames=None)[0]
    cropped = config.model_copy(update={"train": str(file), "augmentation": AugmentationConfig()})
    write(tmp_path / "vid.json", [base64.b64encode(picture(50)).decode()] * 6)  # all frames alike
    stream = VqaTrain(cropped, TextSide(tokenizer, 20, masking=None), 8, frames=3)
    clip = stream.sample(0, np.random.default_rng(3)).image
    assert all(np.array_equal(frame, clip[0]) for frame in clip)


def test_answers_end_with_a_separator_also_where_questions_do_not(small_data: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    bare = load_tokenizer(small_data / "tokenizer", ends_with_separator=False)
    assert tokenizer.sep_token_id not in token_lists(bare, ["red circle"], 20)[0]
    for text, most in (("red", 20), ("red circle " * 20, 6)):  # a long one is cut to the same tokens
        ids, mask = answer_tokens(bare, [text], most)
        usual = answer_tokens(tokenizer, [text], most)
        assert torch.equal(ids, usual[0])
        assert torch.equal(mask, usual[1])


def test_embedded_questions_are_true(small_data: Path) -> None:
    from dataset.shapeworld_questions import ANSWERS

    questions = read_questions(small_data / "vqa_train.json")
    assert len({question.question_id for question in questions}) == len(questions)
    assert {answer for question in questions for answer in question.answers} <= set(ANSWERS)
    assert {question.answer_type for question in questions} == {"yes/no", "number", "other"}
    assert all(len(question.answers) == 10 for question in questions)
