"""Phrases as rows of the embedding table."""

import json
from pathlib import Path

import pytest

from common.errors import UserError
from dataset.phrases import Phrase, PhraseVocabulary
from dataset.phrases.vocabulary import token_map
from fake_records import small_tokenizer

MAN, BOAT, TWO = ("man",), ("giraffe",), ("boat", "two")


def test_ids_of_the_published_vocabulary_are_read(tmp_path: Path) -> None:
    path = tmp_path / "id2phrase.json"
    path.write_text(json.dumps({"2158": ["man"], "30522": ["boat", "two"], "80008": ["giraffe"]}))
    vocabulary = PhraseVocabulary.load(path)
    found = vocabulary.encode([Phrase(MAN, (0,)), Phrase(TWO, (1,)), Phrase(("yak",), (2,)), Phrase(BOAT, (3,))])
    assert [entry for entry, _ in found] == [2158, 30522, 80008]  # the yak is dropped
    assert (vocabulary.rows, len(vocabulary), vocabulary.classes[30522]) == (80009, 3, 1)


def test_one_word_phrases_share_the_row_of_their_word_and_composites_come_first(tmp_path: Path) -> None:
    tokenizer = small_tokenizer(tmp_path)
    word = next(token for token in tokenizer.get_vocab() if token.isalpha() and len(token) > 3)
    sentences = [[(word,), (word, "odd"), ("zzyzxq",)]] * 3 + [[("rare",)]]
    vocabulary = PhraseVocabulary.build(sentences, tokenizer, min_count=2)
    size = len(tokenizer)
    assert vocabulary.ids == {(word,): tokenizer.get_vocab()[word], (word, "odd"): size, ("zzyzxq",): size + 1}
    vocabulary.save(tmp_path / "phrases.json")
    assert PhraseVocabulary.load(tmp_path / "phrases.json").ids == vocabulary.ids
    assert len(PhraseVocabulary.build(sentences, tokenizer, 2, max_size=1)) == 1


def test_tokens_know_the_phrases_they_are_part_of() -> None:
    phrases = [Phrase(("bus",), (2,)), Phrase(("bus", "red"), (2, 1))]
    # [CLS] the red bus ##es [SEP]
    assert token_map(phrases, [None, 0, 1, 2, 2, None]) == {2: [1], 3: [0, 1], 4: [0, 1]}


@pytest.mark.parametrize("content", ["[1, 2]", "{", "{}", '{"a": ["x"]}'])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "phrases.json").write_text(content)
    with pytest.raises(UserError, match=r"phrases\.json"):
        PhraseVocabulary.load(tmp_path / "phrases.json")
