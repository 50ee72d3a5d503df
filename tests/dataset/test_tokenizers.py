"""Vocabulary training, loading and encoding."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import BertTokenizer, BertTokenizerFast  # pyright: ignore[reportAttributeAccessIssue]

from common.errors import UserError
from dataset.tokenizers import encode_texts, load_tokenizer, token_lists, train_wordpiece
from fake_records import SENTENCES, small_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    small_tokenizer(path)
    return path


def test_trained_vocabulary_loads_with_the_public_class_and_knows_its_words(folder):
    tokenizer = BertTokenizerFast.from_pretrained(str(folder))
    assert len(tokenizer) > 50
    assert tokenizer.tokenize("A Red circle") == ["a", "red", "circle"]
    assert [tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id] == [0, 2, 3, 4]


def test_same_texts_give_the_same_vocabulary_in_another_process(folder, tmp_path):
    code = (
        "import sys; sys.path[:0] = ['.', 'tests/support']\n"
        "from pathlib import Path; from fake_records import small_tokenizer; small_tokenizer(Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=Path(__file__).parents[2])
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_a_vocabulary_too_small_for_the_letters_is_refused(tmp_path):
    with pytest.raises(UserError, match="letters"):
        train_wordpiece(SENTENCES, tmp_path, vocab_size=20)


def test_encoding_pads_to_a_multiple_of_four_and_masks_the_padding(folder):
    tokenizer = load_tokenizer(folder)
    ids, mask = encode_texts(tokenizer, ["a red circle", "the large purple star beside a small yellow cross"], max_tokens=40)
    assert ids.shape == mask.shape == (2, 12)
    assert ids.dtype == torch.int64
    assert mask.dtype == torch.bool
    assert mask.sum(1).tolist() == [5, 11]
    assert ids[0, :5].tolist() == [2, *(tokenizer.convert_tokens_to_ids(word) for word in ("a", "red", "circle")), 3]
    assert (ids[~mask] == 0).all()


def test_texts_without_a_separator_have_room_for_one_token_more(folder):
    usual, bare = load_tokenizer(folder), load_tokenizer(folder, ends_with_separator=False)
    assert token_lists(bare, ["a red circle"], 12) == [ids[:-1] for ids in token_lists(usual, ["a red circle"], 12)]
    assert token_lists(bare, ["red " * 50], 12) == [[2] + [usual.convert_tokens_to_ids("red")] * 11]


def test_long_texts_are_cut_with_the_separator_kept_and_padding_stops_at_the_limit(folder):
    tokenizer = load_tokenizer(folder)
    ids, mask = encode_texts(tokenizer, ["red " * 50], max_tokens=12)
    assert ids.shape == (1, 12)
    assert mask.all()
    assert ids[0, -1] == tokenizer.sep_token_id
    assert token_lists(tokenizer, [], 12) == []


def test_a_missing_folder_and_an_unread_vocabulary_are_named(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        load_tokenizer(tmp_path / "nowhere")
    BertTokenizer(vocab={token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])}).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="only 5 entries"):
        load_tokenizer(tmp_path)
