"""From a recipe's stream settings to the stream: the one place that knows all kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataset.config import ImageTextStream, PatchMaskingConfig, RegionTextStream, StorageSettings, TokenizerConfig, TrainingStream
from dataset.patch_masking import PatchSide
from dataset.records import open_source
from dataset.storage import Storage
from dataset.streams.base import Stream, TextSide
from dataset.streams.image import Images
from dataset.streams.image_text import ImageTexts
from dataset.streams.region_text import RegionTexts
from dataset.streams.text import Texts
from dataset.streams.unpaired_config import ImageStream, TextStream

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def build_stream(
    name: str,
    config: TrainingStream,
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
    store = Storage(storage)

    def hiding(masking: PatchMaskingConfig) -> PatchSide:
        return PatchSide(image_size // patch_size, masking)

    if isinstance(config, TextStream):
        source = open_source(patterns, need_image=False, storage=store)
        return Texts(name, source, config, TextSide(tokenizer, config.max_tokens, config.masking, texts.padding))
    if isinstance(config, ImageStream):
        source = open_source(patterns, image_key=config.image_key, image_root=config.image_root, storage=store)
        return Images(name, source, config, image_size, hiding(config.patch_masking))
    if not isinstance(config, (ImageTextStream, RegionTextStream)):
        raise TypeError(f"no stream for {type(config).__name__}")
    source = open_source(patterns, image_key=config.image_key, image_root=config.image_root, storage=store)
    text = TextSide(tokenizer, texts.max_tokens, config.masking, texts.padding)
    if isinstance(config, RegionTextStream):
        return RegionTexts(name, source, config, text, image_size, patch_size)
    return ImageTexts(name, source, config, text, image_size, hiding(config.patch_masking) if config.objectives.get("mim") else None)
