"""The JSON layouts of question answering, read as one.

VQA v2, VG      [{question_id, question, image, answer: [10 texts] or text, dataset: vqa or vg}], without answers for the test server
your own        [{question, image, answer}], with or without question_id
GQA, xGQA       [{question_id, sent, img_id, label: {answer: score}}], or {question_id: {question, imageId, answer}}
MSRVTT, MSVD    a JSON object a line: {video_id, question, answer}; frames in video_NUMBER.json or NAME.json, a list of base64 images,
                or, where there is no such list, videos called videoNUMBER.mp4 or NAME.mp4 (.avi ...)
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from dataset.shard_index import VIDEO_EXTENSIONS
from dataset.tasks.vqa_config import VqaData

Record = dict[str, Any]
VG_WEIGHT = 0.5


@dataclass(frozen=True)
class Question:
    """One question."""

    question_id: int | str
    text: str
    image: str
    """Path of the image, or of a JSON file of frames, relative to a folder that `source` tells."""
    answers: tuple[str, ...]
    """All that people gave, repeated as often as given; empty where they are kept secret."""
    weights: tuple[tuple[str, float], ...]
    """Distinct answers with their weights in training."""
    source: str = ""
    """What the record calls its data set."""
    answer_type: str = ""
    """yes/no, number or other, where the record says so."""


def read_questions(file: Path) -> list[Question]:
    """The questions of a file of any layout.

    Raises:
        UserError: naming the file and the first record (of JSON lines, the line) and key that are wrong.
    """
    records = _records(file)
    place, first = records[0]
    if not isinstance(first, dict):
        raise UserError(f"{file}, {place}: not a JSON object.")
    layout = next((layout for keys, layout in LAYOUTS if keys <= first.keys()), None)
    if layout is None:
        known = "; ".join(", ".join(sorted(keys)) for keys, _ in LAYOUTS)
        raise UserError(f"{file}, {place}: none of the known layouts. A record needs one of these sets of keys: {known}.")
    questions: list[Question] = []
    for number, (place, record) in enumerate(records):
        if not isinstance(record, dict):
            raise UserError(f"{file}, {place}: not a JSON object.")
        try:
            questions.append(layout(record, number))
        except KeyError as error:
            raise UserError(f"{file}, {place}: {error.args[0]} is missing.") from error
        except _Wrong as error:
            raise UserError(f"{file}, {place}: {error}.") from error
    return questions


def read_answers(file: Path) -> list[str]:
    """The answers of a list, in their order.

    Raises:
        UserError: the file is neither a list of texts nor a mapping from texts to the numbers 0, 1, ...
    """
    content = _json(file)
    if isinstance(content, dict):
        numbers = sorted(content.values()) if all(isinstance(value, int) for value in content.values()) else []
        if numbers != list(range(len(content))):
            raise UserError(f"{file}: the answers' numbers are not 0 to {len(content) - 1}, each once.")
        content = sorted(content, key=lambda answer: content[answer])
    if not isinstance(content, list) or not content:
        raise UserError(f"{file} must hold a list of answers, or a mapping from answers to numbers.")
    odd = next((index for index, answer in enumerate(content) if not isinstance(answer, str) or not answer.strip()), None)
    if odd is not None:
        raise UserError(f"{file}, answer {odd}: {content[odd]!r} is not a text.")
    return content


def labels_of(data: VqaData) -> dict[str, int]:
    """The number of each answer to choose from.

    Raises:
        UserError: an answer is listed twice: a class would have two numbers.
    """
    assert data.answers is not None, "the config says so"
    answers = read_answers(Path(data.answers))
    labels = {answer: number for number, answer in enumerate(answers)}
    if len(labels) != len(answers):
        twice = next(answer for answer, count in Counter(answers).items() if count > 1)
        raise UserError(f'{data.answers}: "{twice}" is listed twice; a class needs one number.')
    return labels


def count_of(questions: Sequence[Question]) -> int:
    """How many questions there are; those of Visual Genome, which published numbers leave out, do not count."""
    return sum(question.source != "vg" for question in questions)


class _Wrong(Exception):
    """What is wrong with a record."""


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{file} does not exist. Write the data set first, or correct the path.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as JSON ({error}).") from error


def _records(file: Path) -> list[tuple[str, Any]]:
    """Every record with the words that name its place."""
    if file.suffix == ".jsonl":
        return _lines(file)
    content = _json(file)
    if isinstance(content, dict) and content:
        return [(f"record {key}", {"question_id": key, **value} if isinstance(value, dict) else value) for key, value in content.items()]
    if not isinstance(content, list) or not content:
        raise UserError(f"{file} must hold at least one question, in a list or by its id.")
    return [(f"record {number}", record) for number, record in enumerate(content)]


def _lines(file: Path) -> list[tuple[str, Any]]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise UserError(f"{file} does not exist. Write the data set first, or correct the path.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}).") from error
    records: list[tuple[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            records += [(f"line {number}", json.loads(line))] if line.strip() else []
        except ValueError as error:
            raise UserError(f"{file}, line {number}: not JSON ({error}).") from error
    if not records:
        raise UserError(f"{file} must hold at least one question.")
    return records


def _plain(record: Record, number: int) -> Question:
    """VQA v2, Visual Genome, and your own."""
    source = str(record.get("dataset", ""))
    given = _given(record.get("answer"))
    weights = Counter(given)
    total = len(given)
    weighted = tuple((answer, VG_WEIGHT if source == "vg" else count / total) for answer, count in weights.items())
    kind = str(record.get("answer_type", ""))
    return Question(record.get("question_id", number), _text(record, "question"), _text(record, "image"), given, weighted, source, kind)


def _gqa(record: Record, number: int) -> Question:
    """Training questions of GQA: every answer with the same weight."""
    label = record["label"]
    if not isinstance(label, dict):
        raise _Wrong(f"label is {type(label).__name__}, not a mapping from answers to scores")
    answers = tuple(label)
    weights = tuple((answer, 1 / len(answers)) for answer in answers)
    return Question(record.get("question_id", number), _text(record, "sent"), _image_name(record["img_id"]), answers, weights, "gqa")


def _gqa_by_id(record: Record, number: int) -> Question:
    """Questions of GQA and xGQA by their id."""
    given = _given(record.get("answer"))
    weights = tuple((answer, 1 / len(given)) for answer in given)
    return Question(record.get("question_id", number), _text(record, "question"), _image_name(record["imageId"]), given, weights, "gqa")


def _video(record: Record, number: int) -> Question:
    """Questions about clips."""
    given = _given(record.get("answer"))
    video = record["video_id"]
    name = f"video_{video}" if isinstance(video, int) else str(video)
    image = name if Path(name).suffix[1:].lower() in VIDEO_EXTENSIONS else f"{name}.json"
    weights = tuple((answer, 1 / len(given)) for answer in given)
    return Question(record.get("question_id", number), _text(record, "question"), image, given, weights, "video")


LAYOUTS: tuple[tuple[frozenset[str], Callable[[Record, int], Question]], ...] = (
    (frozenset({"sent", "img_id"}), _gqa),
    (frozenset({"question", "imageId"}), _gqa_by_id),
    (frozenset({"question", "video_id"}), _video),
    (frozenset({"question", "image"}), _plain),
)
"""Keys that tell a layout, and how its records are read."""


def _text(record: Record, key: str) -> str:
    value = record[key]
    if not isinstance(value, str) or not value:
        raise _Wrong(f"{key} is {value!r}, not a text")
    return value


def _given(answer: Any) -> tuple[str, ...]:
    """The answers of a record: none, one text, or a list of texts."""
    answers = [] if answer is None else [answer] if isinstance(answer, str) else answer
    if not isinstance(answers, list) or not all(isinstance(text, str) for text in answers):
        raise _Wrong(f"answer is {answer!r}, neither a text nor a list of texts")
    return tuple(answers)


def _image_name(value: Any) -> str:
    name = str(value)
    return name if Path(name).suffix else f"{name}.jpg"
