"""The tokenizer that travels with a prepared data set: a given one, or a vocabulary trained on the set's own texts."""

import logging
from collections.abc import Iterable
from pathlib import Path

from dataset.tokenizers import load_tokenizer, train_wordpiece

logger = logging.getLogger(__name__)


def provide_tokenizer(out_dir: Path, texts: Iterable[str], vocab: Path | None, vocab_size: int) -> int:
    """Put a tokenizer into a folder.

    Args:
        out_dir: the folder, made.
        texts: to train a WordPiece vocabulary on where none is given.
        vocab: a BertTokenizer folder to take over.
        vocab_size: upper bound of the entries of a trained vocabulary.

    Returns:
        Number of entries.

    Raises:
        UserError: `vocab` holds no tokenizer, or `vocab_size` has no room for the letters of the texts.
    """
    if vocab is not None:
        tokenizer = load_tokenizer(vocab)
        tokenizer.save_pretrained(out_dir)  # the tokenizer alone, whatever else its folder holds
        return len(tokenizer)
    train_wordpiece(texts, out_dir, vocab_size)
    entries = len(load_tokenizer(out_dir))
    logger.info("tokenizer: WordPiece vocabulary of %d entries trained on the captions and phrases", entries)
    return entries
