"""From a recipe's stream settings to the stream: the one place that knows all kinds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dataset.concept_text import ConceptTexts
from dataset.concepts import ConceptStream
from dataset.config import ImageTextStream, RegionTextStream, StorageSettings, TokenizerConfig
from dataset.phrases import PhraseVocabulary
from dataset.records import open_source
from dataset.storage import Storage
from dataset.streams.base import Stream, TextSide
from dataset.streams.concepts import Concepts
from dataset.streams.image_text import ImageTexts
from dataset.streams.region_text import RegionTexts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def build_stream(
    name: str,
    config: ImageTextStream | RegionTextStream | ConceptStream,
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
    pixels = not (isinstance(config, ConceptStream) and config.regions.source == "features")
    source = open_source(patterns, image_key=config.image_key, image_root=config.image_root, need_image=pixels, storage=Storage(storage))
    if isinstance(config, ConceptStream):
        vocabulary = PhraseVocabulary.load(Path(config.phrases.vocabulary))
        words = ConceptTexts(tokenizer, vocabulary, texts.max_tokens, config.phrases.reserve, config.tags.max_tokens)
        return Concepts(name, source, config, words, image_size)
    text = TextSide(tokenizer, texts.max_tokens, config.masking, texts.padding)
    if isinstance(config, RegionTextStream):
        return RegionTexts(name, source, config, text, image_size, patch_size)
    return ImageTexts(name, source, config, text, image_size)
