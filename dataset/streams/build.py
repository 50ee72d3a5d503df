"""From a recipe's stream settings to the stream: the one place that knows all kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataset.config import ImageTextStream, RegionTextStream, StorageSettings, TokenizerConfig
from dataset.parallel_config import ParallelTextStream
from dataset.records import open_source
from dataset.storage import Storage
from dataset.streams.base import Stream, TextSide
from dataset.streams.image_text import ImageTexts
from dataset.streams.parallel_text import ParallelTexts
from dataset.streams.region_text import RegionTexts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def build_stream(
    name: str,
    config: ImageTextStream | RegionTextStream | ParallelTextStream,
    tokenizer: PreTrainedTokenizerBase,
    texts: TokenizerConfig,
    image_size: int,
    patch_size: int,
    storage: StorageSettings | None = None,
) -> Stream:
    """Open a stream's records and make the stream.

    Args:
        name: of the stream.
        config: its settings.
        tokenizer: of its texts.
        texts: how long they may be, and how they are padded.
        image_size, patch_size: of the model, in pixels.
        storage: how data files are read; None: the defaults.

    Raises:
        UserError: shards are missing or damaged.
    """
    patterns = [config.shards] if isinstance(config.shards, str) else config.shards
    if isinstance(config, ParallelTextStream):
        source = open_source(patterns, need_image=False, storage=Storage(storage))
        text = TextSide(tokenizer, config.max_tokens or texts.max_tokens, config.masking, texts.padding)
        return ParallelTexts(name, source, config, text)
    source = open_source(patterns, image_key=config.image_key, image_root=config.image_root, storage=Storage(storage))
    text = TextSide(tokenizer, texts.max_tokens, config.masking, texts.padding)
    if isinstance(config, RegionTextStream):
        return RegionTexts(name, source, config, text, image_size, patch_size)
    return ImageTexts(name, source, config, text, image_size)
