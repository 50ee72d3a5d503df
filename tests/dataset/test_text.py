"""Caption normalisation and choice."""

import json
from pathlib import Path

import numpy as np
import pytest

from dataset.text import EmptyCaption, caption_texts, names_a_side, pick_caption, pre_caption, pre_question

OFFICIAL = Path(__file__).parents[3] / "shared/golden/functions_x2vlm/functions.json"


@pytest.mark.parametrize(
    ("text", "max_words", "expected"),
    [
        ("A man, riding a horse.", 5, "a man riding a horse"),
        ("two-way street / road", 30, "two way street road"),
        ("What's   this?? (really)", 30, "what s this really"),
        ("  <person> near the <person>'s car", 5, "person near the person s"),
        ('Hello! #tag *star* : semi; tilde~ "q"', 5, "hello tag star semi tilde"),
        ("tab\tand\nnewline at end\n", 5, "tab\tand\nnewline at end"),
        ("caf\u00e9 na\u00efve \u2014 dash", 30, "caf\u00e9 na\u00efve \u2014 dash"),
        ("1,000.50 dollars", 30, "1 000 50 dollars"),
        ("a...b", 5, "a b"),
    ],
)
def test_captions_are_normalised_as_published(text, max_words, expected):
    assert pre_caption(text, max_words) == expected


def test_captions_equal_every_recorded_official_result():
    if not OFFICIAL.is_file():
        pytest.skip("the recorded official results are not beside this project")
    for case in json.loads(OFFICIAL.read_text())["pre_caption"]:
        assert pre_caption(case["text"], case["max_words"]) == case["out"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("What's   this?? (really)", "whats this really"), ("two-way street / road", "two way street road"), ("1,000.50", "100050")],
)
def test_xvlm_deletes_punctuation_instead(text, expected):
    assert pre_caption(text, 30, "delete") == expected


@pytest.mark.parametrize(
    ("text", "max_words", "expected"),
    [
        ("A man, riding a horse.", 4, "a man  riding"),  # the space for the comma is a word of no letters
        ("What's   this?? ", 30, "what s   this"),
        ("  <person> near", 30, "  <person> near"),
        ("?!", 30, ""),
    ],
)
def test_questions_keep_their_white_space(text, max_words, expected):
    assert pre_question(text, max_words) == expected


@pytest.mark.parametrize("text", ["", "   ", "?!...", "\n", "\t "])
def test_nothing_left_is_an_error(text):
    with pytest.raises(EmptyCaption):
        pre_caption(text, 30)


def test_every_layout_of_captions_can_be_drawn_from():
    rng = np.random.default_rng(0)
    assert pick_caption("one", rng) == "one"
    assert {pick_caption(["one", "two"], rng) for _ in range(30)} == {"one", "two"}
    assert {pick_caption({"en": "one", "de": ["eins", "ein"]}, rng) for _ in range(60)} == {"one", "eins", "ein"}
    assert caption_texts({"en": "one", "de": ["eins"]}) == ["one", "eins"]
    for nothing in (None, [], {}, 3):
        with pytest.raises(EmptyCaption):
            pick_caption(nothing, rng)


def test_an_attribute_precedes_the_caption_in_its_language():
    rng = np.random.default_rng(0)
    assert {pick_caption("ball", rng, ["red", "big"]) for _ in range(30)} == {"red ball", "big ball"}
    pairs = {pick_caption({"en": "ball", "de": "Ball"}, rng, {"en": "red", "de": "rot"}) for _ in range(30)}
    assert pairs == {"red ball", "rot Ball"}


def test_sides_are_whole_words():
    assert names_a_side(["a dog", "LEFT of it"])
    assert names_a_side(["the right-hand one"])
    assert names_a_side(["the rightmost shape"])
    assert not names_a_side(["a bright, upright lamp", "leftover"])
