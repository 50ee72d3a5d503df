"""From a recipe's stream settings to the stream: the one place that knows all kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataset.config import ImageTextStream, RegionTextStream
from dataset.records import open_source
from dataset.streams.base import Stream, TextSide
from dataset.streams.image_text import ImageTexts
from dataset.streams.region_text import RegionTexts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def build_stream(
    name: str,
    config: ImageTextStream | RegionTextStream,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    image_size: int,
    patch_size: int,
) -> Stream:
    """Open a stream's records and make the stream.

    Raises:
        UserError: shards are missing or damaged.
    """
    patterns = [config.shards] if isinstance(config.shards, str) else config.shards
    source = open_source(patterns, image_key=config.image_key, image_root=config.image_root)
    text = TextSide(tokenizer, max_tokens, config.masking)
    if isinstance(config, RegionTextStream):
        return RegionTexts(name, source, config, text, image_size, patch_size)
    return ImageTexts(name, source, config, text, image_size)
