"""What the questions of easy-VQA say of a picture."""

from typing import Any

import pytest

from dataset.prepare.easy_vqa import TWIN, _pairs, described, twins


def records(image: str, *asked: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"question": question, "answer": answer, "image": image} for question, answer in asked]


@pytest.mark.parametrize(
    ("asked", "caption"),
    [
        ([("what shape is present?", "circle"), ("what color is the shape?", "red")], "a red circle"),
        ([("what color is the circle?", "teal")], "a teal circle"),  # the question says the shape itself
        ([("what is the blue shape?", "triangle")], "a blue triangle"),
        ([("is there a rectangle?", "yes"), ("is there not a gray shape?", "no")], "a gray rectangle"),
        ([("is no circle present?", "no"), ("is a green shape present?", "yes")], "a green circle"),
        ([("is there a circle?", "no"), ("is there a green shape?", "yes")], None),
        ([("is there not a circle?", "yes"), ("what color is the shape?", "red")], None),
    ],
)
def test_a_caption_follows_from_answers_and_from_what_is_affirmed(asked: list[tuple[str, str]], caption: str | None) -> None:
    assert described(records("a.png", *asked)).get("a.png") == caption


def test_images_of_one_caption_are_of_one_sample_in_training_and_one_of_them_is_searched() -> None:
    red, blue = ("what color is the circle?", "red"), ("what color is the circle?", "blue")
    asked = [record for image, about in (("a", red), ("b", blue), ("c", red)) for record in records(image, about)]
    assert [(pair["image"], pair["caption"], pair["image_id"]) for pair in _pairs(asked, True)] == [
        ("a", "a red circle", 1),
        ("b", "a blue circle", 0),
        ("c", "a red circle", 1),
    ]
    assert _pairs(asked, False) == [{"image": "b", "caption": ["a blue circle"]}, {"image": "a", "caption": ["a red circle"]}]


def test_twins_ask_the_other_way_so_that_the_wording_says_nothing() -> None:
    asked = records(
        "a.png",
        ("what color is the circle?", "red"),
        ("is there a red shape?", "yes"),
        ("is there not a teal shape?", "yes"),
        ("is a triangle present?", "no"),
    )
    found = twins([record | {"question_id": number} for number, record in enumerate(asked)])
    assert [(twin["question_id"], twin["answer"]) for twin in found] == [(TWIN + 1, "no"), (TWIN + 2, "no"), (TWIN + 3, "yes")]
    other, *rest = [twin["question"] for twin in found]
    assert other.startswith("is there a ") and other.endswith(" shape?") and "red" not in other
    assert rest == ["is there not a red shape?", "is a circle present?"]


def test_images_whose_look_is_not_known_have_no_twins() -> None:
    asked = records("a.png", ("is there a red shape?", "yes"), ("is there a circle?", "no"))
    assert twins([record | {"question_id": number} for number, record in enumerate(asked)]) == []
