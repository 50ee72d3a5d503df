"""Accuracy of answers by the rule of VQA v2 (visualqa.org/evaluation.html), and the file that its server takes.

Answers are compared after normalisation, given ones and predicted ones alike. A prediction that three people gave is right, one that fewer
gave is right in part, and people are judged by the same measure: the score is averaged over all ways to leave one of them out.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError
from common.files import replace_file

ARTICLES = {"a", "an", "the"}
NUMBERS: dict[str, str] = dict(
    zip(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"), map(str, range(11)), strict=True)
)
NUMBERS |= {"none": "0"}
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
"""Apostrophes and colons stay: they tell possessives and times."""
DIGIT_COMMA = re.compile(r"\d,\d")
PERIOD = re.compile(r"\.(?!\d)")
"""A period that no digit follows; one that a digit follows is a decimal point."""
CONTRACTIONS_OF_TWO = (
    "ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't it'd it'll ma'am "
    "mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't somebody'll somebody's someone'd "
    "someone'll someone's something'd something'll that's there'd there're there's they'd they'll they're they've 'twas wasn't we've "
    "weren't what'll what're what's what've when's where'd where's where've who'd who'll who's who've why'll why're why's won't would've "
    "wouldn't y'all you'd you'll you're you've"
)
CONTRACTIONS_OF_MORE = (
    "couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've something'd've there'd've "
    "they'd've we'd've who'd've wouldn't've you'd've 'ow's'at y'all'll y'all'd've"
)
ENOUGH = 3
"""So many people who agree make an answer right."""


def _contractions() -> dict[str, str]:
    """What lacks an apostrophe to what has it. Words such as "well" and "shed" are other words, too, and are not in the published list."""
    table = {word.replace("'", ""): word for word in CONTRACTIONS_OF_TWO.split()}
    for word in CONTRACTIONS_OF_MORE.split():
        places = [place for place, letter in enumerate(word) if letter == "'"]
        table |= {word[:place] + word[place + 1 :]: word for place in places}
    return table | {"yall'd've": "y'all'd've", "somebody'd": "somebodyd"}  # the latter as published


CONTRACTIONS = _contractions()


def normalize_answer(answer: str) -> str:
    """An answer as it is compared: lower case, no articles, digits for numbers, apostrophes where they belong, hardly any punctuation.

    As in the published code a mark becomes a space, but nothing where it stands beside a space, or where digits are grouped by a comma
    anywhere in the answer.
    """
    text = answer.replace("\n", " ").replace("\t", " ").strip()
    grouped = DIGIT_COMMA.search(text) is not None
    cleaned = text
    for mark in PUNCTUATION:
        beside = f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if beside or grouped else " ")
    words = [NUMBERS.get(word, word) for word in PERIOD.sub("", cleaned).lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def vqa_accuracy(answer: str, given: Sequence[str]) -> float:
    """How right an answer is, 0 to 1.

    Args:
        answer: predicted.
        given: by people, ten of them in VQA v2. Of one alone nobody can be left out: the answer is then right or wrong.

    Raises:
        ValueError: nobody gave an answer.
    """
    if not given:
        raise ValueError("no given answer to compare with")
    wanted = normalize_answer(answer)
    matches = [normalize_answer(text) == wanted for text in given]
    if len(matches) == 1:
        return float(matches[0])
    return sum(min(1.0, (sum(matches) - own) / ENOUGH) for own in matches) / len(matches)


def commonest(given: Sequence[str]) -> str:
    """The answer that most people gave; of several the first."""
    return Counter(given).most_common(1)[0][0]


def vqa_metrics(answers: Sequence[str], given: Sequence[Sequence[str]], types: Sequence[str] | None = None) -> dict[str, float]:
    """Accuracy over questions.

    Args:
        answers: predicted, one for each question.
        given: by people.
        types: kind of answer of each question ("yes/no", "number", "other"); "" where it is not known.

    Returns:
        Percentages: `vqa_accuracy` by the rule above, `exact_match` with the commonest answer letter by letter, and
        `vqa_accuracy_yes_no` and the like for each kind.

    Raises:
        ValueError: no questions, or lists of different lengths.
    """
    if not answers or len(answers) != len(given):
        raise ValueError(f"{len(answers)} answers to {len(given)} questions")
    scores = [vqa_accuracy(answer, texts) for answer, texts in zip(answers, given, strict=True)]
    exact = [answer == commonest(texts) for answer, texts in zip(answers, given, strict=True)]
    metrics = {"vqa_accuracy": _percent(scores), "exact_match": _percent(exact)}
    for kind in sorted({kind for kind in types or () if kind}):
        own = [score for score, other in zip(scores, types or (), strict=True) if other == kind]
        metrics[f"vqa_accuracy_{re.sub(r'[^a-z0-9]+', '_', kind.lower())}"] = _percent(own)
    return metrics


def write_submission(path: Path, answers: Sequence[tuple[int | str, str]], expected: Sequence[int | str]) -> None:
    """Write the file that EvalAI takes, [{question_id, answer}], in the order of the questions.

    Args:
        path: of the file; replaced at once.
        answers: question id and answer.
        expected: ids of all questions of the set.

    Raises:
        UserError: a question has no answer, or two; the server would refuse the file.
    """
    found = dict(answers)
    missing = [question for question in expected if question not in found]
    if missing:
        raise UserError(f"{path}: {len(missing)} of {len(expected)} questions have no answer, first question {missing[0]}.")
    if len(answers) != len(expected) or len(set(expected)) != len(expected):
        repeated = [question for question, count in Counter(question for question, _ in answers).items() if count > 1]
        raise UserError(f"{path}: question {repeated[0] if repeated else '?'} is answered more than once; question ids must be unique.")
    replace_file(path, json.dumps([{"question_id": question, "answer": found[question]} for question in expected]))


def _percent(values: Sequence[float]) -> float:
    return 100.0 * sum(values) / len(values)
