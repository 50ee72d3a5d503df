"""What the questions of easy-VQA say of a picture."""

from typing import Any

import pytest

from dataset.prepare.easy_vqa import _pairs, described


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
