"""Accuracy of answers by the published rule. The expected values are worked out by hand."""

import json
from pathlib import Path

import pytest

from common.errors import UserError
from evaluation.vqa import commonest, normalize_answer, vqa_accuracy, vqa_metrics, write_submission

NORMALIZED = [
    ("A dog", "dog"),
    ("an  apple", "apple"),
    ("the man in the hat", "man in hat"),
    ("The", ""),
    ("theater", "theater"),
    ("two", "2"),
    ("Ten", "10"),
    ("zero", "0"),
    ("none", "0"),
    ("two dogs and a cat", "2 dogs and cat"),
    ("eleven", "eleven"),
    ("someone", "someone"),
    ("dont", "don't"),
    ("don't", "don't"),
    ("theyre here", "they're here"),
    ("couldnt've", "couldn't've"),
    ("couldn'tve", "couldn't've"),
    ("y'allll", "y'all'll"),
    ("well", "well"),
    ("lets", "lets"),
    ("somebody'd", "somebodyd"),
    ("girl's", "girl's"),
    ("2:50 pm", "2:50 pm"),
    ("100,978", "100978"),
    ("red, white", "red white"),
    ("red,white", "red white"),
    ("black/white", "black white"),
    ("t-shirt", "t shirt"),
    ("yes!", "yes"),
    ("(left)", "left"),
    ("3.5", "3.5"),
    ("st. louis", "st louis"),
    ("U.S.", "us"),
    ("1,000/2", "10002"),
    ("no\n", "no"),
    ("blue\tsky", "blue sky"),
    ("Frisbee.", "frisbee"),
]


@pytest.mark.parametrize(("answer", "expected"), NORMALIZED)
def test_answers_are_normalised_by_the_published_rule(answer: str, expected: str) -> None:
    assert normalize_answer(answer) == expected


SCORED = [
    ("yes", ["yes"] * 10, 1.0),
    ("no", ["yes"] * 10, 0.0),
    # nine of ten subsets hold the one who said it: 9/10 * 1/3
    ("no", ["yes"] * 9 + ["no"], 0.3),
    # 8 subsets hold both (2/3), 2 hold one (1/3)
    ("no", ["yes"] * 8 + ["no"] * 2, (8 * 2 / 3 + 2 / 3) / 10),
    # 7 subsets hold all three (1), 3 hold two (2/3)
    ("no", ["yes"] * 7 + ["no"] * 3, 0.9),
    ("no", ["yes"] * 6 + ["no"] * 4, 1.0),
    # a tie of two answers: both right
    ("red", ["red"] * 5 + ["blue"] * 5, 1.0),
    ("blue", ["red"] * 5 + ["blue"] * 5, 1.0),
    ("2", ["two"] * 4 + ["2"] * 6, 1.0),
    ("The dog!", ["dog"] * 10, 1.0),
    ("dont know", ["don't know"] * 10, 1.0),
    ("Yes", ["yes"], 1.0),
    ("no", ["yes"], 0.0),
]


@pytest.mark.parametrize(("answer", "given", "expected"), SCORED)
def test_an_answer_counts_as_much_as_people_agree_with_it(answer: str, given: list[str], expected: float) -> None:
    assert vqa_accuracy(answer, given) == pytest.approx(expected)


def test_metrics_are_means_over_all_questions_and_those_of_each_kind() -> None:
    given = [["yes"] * 10, ["two"] * 10, ["red"] * 10]
    found = vqa_metrics(["yes", "2", "blue"], given, ["yes/no", "number", "other"])
    assert found["vqa_accuracy"] == pytest.approx(200 / 3)
    assert found["exact_match"] == pytest.approx(100 / 3)  # letter by letter "2" is not "two"
    assert (found["vqa_accuracy_yes_no"], found["vqa_accuracy_number"], found["vqa_accuracy_other"]) == (100.0, 100.0, 0.0)
    assert commonest(["b", "a", "a"]) == "a"


def test_a_submission_holds_every_question_once(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_submission(path, [(3, "no"), (1, "yes")], [1, 3])
    assert json.loads(path.read_text()) == [{"question_id": 1, "answer": "yes"}, {"question_id": 3, "answer": "no"}]
    with pytest.raises(UserError, match="1 of 3 questions have no answer, first question 2"):
        write_submission(path, [(3, "no"), (1, "yes")], [1, 2, 3])
    with pytest.raises(UserError, match="question 1 is answered more than once"):
        write_submission(path, [(1, "no"), (1, "yes")], [1])
