"""Tokenizers: train a WordPiece vocabulary, load one safely, and turn texts into padded id tensors.

Token sequence (X2-VLM): [CLS] pieces [SEP], cut so that it fits `max_tokens` with [SEP] kept; X-VLM has no [SEP].
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from dataset.text import Text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LENGTH_MULTIPLE = 4
"""Padded lengths are multiples of this, so that few different shapes occur; 8 makes short phrases cost a third more."""


def train_wordpiece(texts: Iterable[str], out_dir: Path, vocab_size: int, min_frequency: int = 2) -> None:
    """Train a lower-case WordPiece vocabulary and save it as a folder that `load_tokenizer` reads.

    The result depends on the texts alone. Special tokens take ids 0 to 4 in the order of `SPECIAL_TOKENS`.

    Args:
        texts: the training text, any number of lines.
        out_dir: created; receives vocab.txt, tokenizer.json and tokenizer_config.json.
        vocab_size: upper bound of the number of entries; small corpora give fewer.
        min_frequency: a pair of pieces seen less often is not merged.

    Raises:
        UserError: vocab_size has no room for the letters that occur.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # pyright: ignore[reportCallIssue]
    trained.normalizer = normalizers.BertNormalizer(lowercase=True)  # pyright: ignore[reportAttributeAccessIssue]
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # pyright: ignore[reportAttributeAccessIssue]
    trained.decoder = decoders.WordPiece()  # pyright: ignore[reportAttributeAccessIssue]
    lines = list(texts)
    # The trainer numbers the pieces of one letter in an order that changes from run to run, and breaks ties by these numbers. Handing
    # them over as "special tokens" fixes the numbers; nothing special remains of them, as only the vocabulary is kept.
    letters = sorted({letter for line in lines for letter in trained.normalizer.normalize_str(line) if not letter.isspace()})
    fixed = [*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters)]
    if len(fixed) > vocab_size:
        raise UserError(f"a vocabulary of {vocab_size} entries is too small for the text's {len(letters)} letters; at least {len(fixed)}.")
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, min_frequency=min_frequency, special_tokens=fixed, show_progress=False)
    trained.train_from_iterator(lines, trainer)
    by_id = sorted(trained.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1])
    out_dir.mkdir(parents=True, exist_ok=True)
    vocab_file = out_dir / "vocab.txt"
    vocab_file.write_text("".join(f"{token}\n" for token, _ in by_id), encoding="utf-8")
    _bert_tokenizer(dict(by_id)).save_pretrained(out_dir)
    load_tokenizer(out_dir)  # a folder that cannot be read back must fail here, not in training


def _bert_tokenizer(vocabulary: dict[str, int]) -> PreTrainedTokenizerBase:
    from transformers import BertTokenizer

    # `vocab=`, not `vocab_file=`: the latter silently gives five tokens
    return BertTokenizer(vocab=vocabulary, do_lower_case=True)


def load_tokenizer(path: str | Path, ends_with_separator: bool = True) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder, or by a model name that transformers knows.

    Args:
        path: of the folder, or the name.
        ends_with_separator: see `TokenizerConfig`.

    Raises:
        UserError: nothing can be loaded from `path`, or what was loaded has special tokens only.
    """
    from transformers import AutoTokenizer, BertTokenizer

    # Tokenizing happens in loader workers already; threads inside a forked worker would dead-lock or warn.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    folder = Path(path)
    is_bert_folder = (folder / "vocab.txt").is_file()
    is_local = folder.is_absolute() or len(folder.parts) > 2 or (len(folder.parts) > 1 and folder.parent.is_dir())
    if is_local and not folder.is_dir():
        raise UserError(f"tokenizer.path: {path} is not a folder. Write the data set first, or name an existing tokenizer folder.")
    try:
        tokenizer = (BertTokenizer if is_bert_folder else AutoTokenizer).from_pretrained(str(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"tokenizer.path: no tokenizer can be loaded from {path} ({reason}).") from error
    if len(tokenizer) <= len(SPECIAL_TOKENS):
        raise UserError(f"tokenizer.path: the tokenizer in {path} has only {len(tokenizer)} entries; its vocabulary file was not read.")
    if tokenizer.mask_token_id is None or tokenizer.pad_token_id is None:
        raise UserError(f"tokenizer.path: the tokenizer in {path} has no mask or padding token, which pre-training needs.")
    if not ends_with_separator:
        _leave_separator_out(tokenizer)
    return tokenizer


def _leave_separator_out(tokenizer: PreTrainedTokenizerBase) -> None:
    """Let a tokenizer put its [CLS] before a text and nothing behind it, which leaves room for one token more."""
    from tokenizers.processors import TemplateProcessing

    start = tokenizer.cls_token
    template = TemplateProcessing(single=f"{start} $A", pair=f"{start} $A $B", special_tokens=[(start, tokenizer.cls_token_id)])
    tokenizer.backend_tokenizer.post_processor = template  # pyright: ignore


def token_lists(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text], max_tokens: int) -> list[list[int]]:
    """Ids of each text with [CLS] first and, unless the tokenizer leaves it out, [SEP] last, at most `max_tokens` long, not padded. All are
    single texts, or all are pairs: of a pair that is too long the longer text is cut."""
    if not texts:
        return []
    pairs = [text for text in texts if not isinstance(text, str)]
    first = [first for first, _ in pairs] if pairs else [text for text in texts if isinstance(text, str)]
    second = [second for _, second in pairs] if pairs else None
    encoded = tokenizer(
        first, second, truncation=True, max_length=max_tokens, padding=False, return_attention_mask=False, return_token_type_ids=False
    )
    return encoded["input_ids"]  # pyright: ignore[reportReturnType]


def padded_length(longest: int, max_tokens: int) -> int:
    """The longest text's length rounded up to a multiple of 4, capped at `max_tokens`."""
    return max(1, min(max_tokens, -(-longest // LENGTH_MULTIPLE) * LENGTH_MULTIPLE))


def pad_rows(rows: Sequence[Sequence[int]], width: int, value: int) -> Tensor:
    """Rows of different lengths as one int64 tensor [R, width], filled up with `value` on the right."""
    padded = np.full((len(rows), width), value, dtype=np.int64)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return torch.from_numpy(padded)


def pad_texts(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]], max_tokens: int, to_longest: bool = True
) -> tuple[Tensor, Tensor]:
    """Token lists as (ids int64 [R, L], mask bool [R, L], True = token); L is `padded_length` of the longest, or `max_tokens`."""
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
    width = padded_length(int(lengths.max()) if rows else 1, max_tokens) if to_longest else max_tokens
    pad_id = tokenizer.pad_token_id
    assert isinstance(pad_id, int), "load_tokenizer checks this"
    return pad_rows(rows, width, pad_id), torch.arange(width)[None, :] < lengths[:, None]


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text], max_tokens: int) -> tuple[Tensor, Tensor]:
    """Texts as (ids int64 [R, L], mask bool [R, L], True = token).

    L is the longest text's length rounded up to a multiple of 4, at most `max_tokens`.
    """
    return pad_texts(tokenizer, token_lists(tokenizer, texts, max_tokens), max_tokens)
