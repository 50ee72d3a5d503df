"""Caption normalisation and choice."""

import json
from pathlib import Path

import numpy as np
import pytest

from dataset.text import EmptyCaption, caption_texts, names_a_side, pick_caption, pick_two_captions, pre_caption, pre_question

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


def test_only_the_chosen_languages_are_drawn():
    rng = np.random.default_rng(0)
    captions = {"en": "one", "de": ["eins", "ein"], "fr": "un"}
    assert {pick_caption(captions, rng, languages=["fr", "de"]) for _ in range(60)} == {"eins", "ein", "un"}
    assert {pick_caption([captions, {"de": "zwei"}], rng, languages=["de"]) for _ in range(60)} == {"eins", "ein", "zwei"}
    assert pick_caption("of no stated language", rng, languages=["de"]) == "of no stated language"
    with pytest.raises(EmptyCaption, match="no caption in ja or ko"):
        pick_caption(captions, rng, languages=["ja", "ko"])


def test_switching_codes_draws_whole_attributes_of_any_chosen_language():
    rng = np.random.default_rng(0)
    captions, attributes = {"en": "ball", "de": "Ball"}, {"en": ["red", "big"], "de": "rot", "fr": "rouge"}
    mixed = {pick_caption(captions, rng, attributes, ["en", "de"], code_switch=True) for _ in range(200)}
    assert mixed == {f"{attribute} {noun}" for attribute in ("red", "big", "rot") for noun in ("ball", "Ball")}
    plain = {pick_caption(captions, rng, attributes, ["en", "de"]) for _ in range(200)}
    assert plain == {"red ball", "big ball", "rot Ball"}


def test_chinese_and_japanese_lose_the_spaces_between_their_words_alone():
    rng = np.random.default_rng(0)
    assert pick_caption({"zh": "一 只 狗 和 a red ball 在 草地 上"}, rng) == "一只狗和 a red ball 在草地上"
    assert pick_caption({"zh": "球"}, rng, {"zh": "红色的"}) == "红色的球"
    assert pick_caption({"ko": "빨간 공"}, rng) == "빨간 공"


def test_two_captions_are_of_two_languages_where_there_are_two():
    rng = np.random.default_rng(0)
    found = {tuple(pick_two_captions({"en": "one", "de": "eins", "fr": "un"}, rng, ["en", "de"])) for _ in range(30)}
    assert found == {("one", "eins"), ("eins", "one")}
    assert {tuple(pick_two_captions({"en": ["a", "b"]}, rng)) for _ in range(30)} == {("a", "b"), ("b", "a")}
    assert pick_two_captions("alone", rng) == ["alone", "alone"]


def test_sides_are_known_in_other_languages():
    for text in ("links von ihm", "der linke Ball", "à gauche", "la balle de droite", "狗在左边", "右の犬"):
        assert names_a_side([text]), text
    assert not names_a_side(["ein rechteckiges Blinklicht", "un droit", "狗"])
