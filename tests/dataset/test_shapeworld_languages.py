"""Captions and parallel sentences of the embedded data set in four languages."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from dataset import shapeworld_chinese, shapeworld_french, shapeworld_german
from dataset.shapeworld_languages import LANGUAGES, in_languages, write_languages
from dataset.shapeworld_refer import Description
from dataset.shapeworld_sample import make_scene
from dataset.shapeworld_sayings import sayings
from dataset.shapeworld_scene import COLORS, SHAPES, SIZES, TEXTURES, scene_rng
from dataset.tokenizers import load_tokenizer, token_lists

OTHERS = [language for language in LANGUAGES if language != "en"]


class Always(np.random.Generator):
    """Draws the first of all choices, and above every chance."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))

    def random(self, *_args, **_named):  # pyright: ignore[reportIncompatibleMethodOverride]
        return 0.999

    def integers(self, *_args, **_named):  # pyright: ignore[reportIncompatibleMethodOverride]
        return np.int64(0)


@pytest.fixture(scope="module")
def written(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("languages")
    for name in ("meta.json", "grounding_train.json"):
        (out / name).write_bytes((small_data / name).read_bytes())
    write_languages(out, 3, {"train": 24, "val": 6, "test": 6}, 32, parallel=60)
    return out / "languages"


@pytest.mark.parametrize(
    ("item", "nominative", "dative"),
    [
        (Description("circle", "red", None, "large"), "ein großer roter Kreis", "einem großen roten Kreis"),
        (Description("square", "blue", "striped", None), "ein gestreiftes blaues Quadrat", "einem gestreiften blauen Quadrat"),
        (Description("cross", "cyan", "plain", None), "ein einfarbiges türkisfarbenes Kreuz", "einem einfarbigen türkisfarbenen Kreuz"),
        (Description(None, "purple", None, "small"), "eine kleine violette Form", "einer kleinen violetten Form"),
    ],
)
def test_german_adjectives_agree_with_gender_and_case(item: Description, nominative: str, dative: str) -> None:
    assert shapeworld_german.mention(item, 1, Always()) == nominative
    assert shapeworld_german.mention(item, 1, Always(), "dative") == dative


def test_german_plurals_have_their_own_ending() -> None:
    assert shapeworld_german.mention(Description("star", "green", "dotted", None), 2, Always()) == "zwei gepunktete grüne Sterne"


@pytest.mark.parametrize(
    ("item", "count", "expected"),
    [
        (Description("star", "green", "striped", "large"), 1, "une grande étoile verte rayée"),
        (Description("circle", "purple", "plain", "small"), 1, "un petit cercle violet uni"),
        (Description("cross", "blue", "dotted", None), 2, "deux croix bleues à pois"),
        (Description("ring", "cyan", "striped", None), 3, "trois anneaux cyan rayés"),
        (Description(None, None, "plain", None), 2, "deux formes unies"),
    ],
)
def test_french_adjectives_agree_with_gender_and_number(item: Description, count: int, expected: str) -> None:
    assert shapeworld_french.mention(item, count, Always()) == expected


def test_french_links_are_elided_before_vowels() -> None:
    texts = [text for index in range(40) for text in in_languages(make_scene(1, "t", index), scene_rng(1, "t", index, "x"))["fr"]]
    assert any("d'un" in text for text in texts)
    assert any("ainsi qu'un" in text for text in texts)
    assert not [text for text in texts if " de un" in text or "que un" in text]


def test_chinese_says_number_texture_colour_size_and_shape_in_this_order() -> None:
    assert shapeworld_chinese.mention(Description("circle", "red", "striped", "large"), 1, Always()) == "一个带条纹的红色大圆形"
    assert shapeworld_chinese.mention(Description("ring", "blue", None, None), 2, Always()) == "两个蓝色圆环"


def test_every_description_has_words_in_every_language() -> None:
    for values in product((None, *SHAPES), (None, *COLORS), (None, *TEXTURES), (None, *SIZES)):
        for mention in (shapeworld_german.mention, shapeworld_french.mention, shapeworld_chinese.mention):
            texts = {mention(Description(*values), count, np.random.default_rng(0)) for count in (1, 2)}
            assert len(texts) == 2
            assert all(text == " ".join(text.split()) for text in texts)


def test_all_languages_say_the_same() -> None:
    words = {"en": " red ", "de": " rot", "fr": " rouge", "zh": "红色"}
    for index in range(20):
        scene = make_scene(1, "t", index)
        said = sayings(scene, scene_rng(1, "t", index, "x"))
        captions = in_languages(scene, scene_rng(1, "t", index, "x"))
        for number, saying in enumerate(said):
            things = [item for item, _ in saying.things] + [item for a, _, b in saying.relations for item in (a, b)]
            red = sum(item.color == "red" for item in things)
            assert {language: f" {texts[number]}".count(words[language]) for language, texts in captions.items()} == dict.fromkeys(
                words, red
            )


def test_files_hold_captions_galleries_and_pairs_of_scenes_without_pictures(written: Path, small_data: Path) -> None:
    captions = [json.loads(line) for line in (written / "captions_train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(captions) == 24
    assert all((small_data / "images" / record["image"]).is_file() for record in captions)
    assert all(
        {language: len(texts) for language, texts in record["caption"].items()} == dict.fromkeys(LANGUAGES, 5) for record in captions
    )
    pairs = [json.loads(line) for line in (written / "parallel.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(pairs) == 300
    assert {tuple(pair["languages"]) for pair in pairs} == {("en", language) for language in OTHERS}
    galleries = [json.loads((written / f"retrieval_test_{language}.json").read_text(encoding="utf-8")) for language in LANGUAGES]
    assert all([record["image"] for record in gallery] == [record["image"] for record in galleries[0]] for gallery in galleries)


def test_no_word_of_any_language_is_unknown(written: Path) -> None:
    tokenizer = load_tokenizer(written / "tokenizer")
    for language in LANGUAGES:
        gallery = json.loads((written / f"retrieval_test_{language}.json").read_text(encoding="utf-8"))
        tokens = token_lists(tokenizer, [text for record in gallery for text in record["caption"]], 64)
        assert max(map(len, tokens)) < 64
        assert not [row for row in tokens if tokenizer.unk_token_id in row], language


def test_the_same_request_leaves_the_files_alone(written: Path) -> None:
    before = (written / "meta.json").stat().st_mtime_ns
    write_languages(written.parent, 3, {"train": 24, "val": 6, "test": 6}, 32, parallel=60)
    assert (written / "meta.json").stat().st_mtime_ns == before
