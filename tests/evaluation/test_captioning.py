"""Scores of captions: equal to pycocoevalcap's, and what is there without it."""

import json
import logging
from pathlib import Path

import pytest

from common.errors import UserError
from evaluation import captioning
from evaluation.captioning import bleu, caption_metrics, official_metrics, words_of, write_captions
from evaluation.cider import CiderD, cider_d

RECORDED = json.loads((Path(__file__).parents[1] / "fixtures/captions/pycocoevalcap.json").read_text())
CAPTIONS = [text.split() for text in RECORDED["captions"]]
REFERENCES = [[text.split() for text in texts] for texts in RECORDED["references"]]


def test_cider_d_is_that_of_pycocoevalcap() -> None:
    scorer = CiderD(REFERENCES)
    each = [scorer.score(caption, image) for image, caption in enumerate(CAPTIONS)]
    assert each == pytest.approx(RECORDED["cider_each"], abs=1e-9)
    assert cider_d(CAPTIONS, REFERENCES) == pytest.approx(RECORDED["cider"], abs=1e-9)


def test_bleu_is_that_of_pycocoevalcap() -> None:
    assert bleu(CAPTIONS, REFERENCES) == pytest.approx(RECORDED["bleu"], abs=1e-7)
    short = [caption[:1] for caption in CAPTIONS]
    assert bleu(short, REFERENCES)[0] < 0.5  # too short a text is no better for being right
    assert bleu([["nothing"]], [[["else"]]]) == [0.0] * 4


def test_words_are_cut_where_people_would() -> None:
    assert words_of("A man's T-shirt, (blue) & 2 dogs!") == ["a", "man", "'s", "t-shirt", "blue", "2", "dogs"]


def test_without_the_package_or_java_there_are_our_own_numbers_and_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert {"bleu4_words", "cider_words"} <= caption_metrics(["a dog"], [["a dog", "the dog"]]).keys()

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(captioning.importlib, "import_module", missing)
    with caplog.at_level(logging.WARNING):
        assert official_metrics(["a dog"], [["a dog"]], ["cider"]) == {}
    assert "pycocoevalcap is not installed" in caplog.text


def test_our_numbers_are_the_official_ones_where_the_tokenizers_agree() -> None:
    pytest.importorskip("pycocoevalcap")
    if captioning.shutil.which("java") is None:
        pytest.skip("there is no Java")
    captions, references = ["a red dog runs .", "Two cats, asleep"], [["a red dog runs fast", "a dog"], ["two cats asleep on a bed"]]
    own, official = caption_metrics(captions, references), official_metrics(captions, references, ["bleu", "cider"])
    assert official.keys() == {"bleu1", "bleu2", "bleu3", "bleu4", "cider"}
    assert [own[f"{name}_words"] for name in official] == pytest.approx(list(official.values()), abs=1e-4)


def test_captions_are_written_as_the_servers_take_them(tmp_path: Path) -> None:
    write_captions(tmp_path / "captions.json", [(391895, "a man on a bike"), ("own.jpg", "a dog")])
    written = json.loads((tmp_path / "captions.json").read_text())
    assert written == [{"image_id": 391895, "caption": "a man on a bike"}, {"image_id": "own.jpg", "caption": "a dog"}]
    with pytest.raises(UserError, match="described more than once"):
        write_captions(tmp_path / "captions.json", [(1, "a"), (1, "b")])
