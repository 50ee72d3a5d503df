"""From a recipe's stream settings to the stream: the one place that knows all kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.errors import UserError
from dataset.config import ImageTextStream, RegionTextStream, StorageSettings, TokenizerConfig, VideoTextStream
from dataset.records import RecordSource, open_source
from dataset.storage import Storage
from dataset.streams.base import Stream, TextSide
from dataset.streams.image_text import ImageTexts
from dataset.streams.mixture import Mixture
from dataset.streams.region_text import RegionTexts
from dataset.streams.video_text import VideoTexts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def build_stream(
    name: str,
    config: ImageTextStream | RegionTextStream | VideoTextStream,
    tokenizer: PreTrainedTokenizerBase,
    texts: TokenizerConfig,
    image_size: int,
    patch_size: int,
    storage: StorageSettings | None = None,
    frames: int | None = None,
) -> Stream:
    """Open a stream's records and make the stream.

    Args:
        name: of the stream.
        config: its settings.
        tokenizer: of its texts.
        texts: how long they may be, and how they are padded.
        image_size, patch_size: of the model, in pixels.
        storage: how data files are read; None: the defaults.
        frames: of a clip; None where the model takes none.

    Raises:
        UserError: shards are missing or damaged, or there are clips without a number of frames.
    """
    text = TextSide(tokenizer, texts.max_tokens, config.masking, texts.padding)
    clips = isinstance(config, VideoTextStream)

    def opened(shards: str | list[str]) -> RecordSource:
        patterns = [shards] if isinstance(shards, str) else shards
        return open_source(patterns, config.image_key, config.image_root, need_image=not clips, storage=Storage(storage))

    def stream(source: RecordSource) -> Stream:
        if isinstance(config, RegionTextStream):
            return RegionTexts(name, source, config, text, image_size, patch_size)
        if isinstance(config, VideoTextStream):
            if frames is None:
                raise UserError(f"streams.{name} is of clips, but model.vision.frames is not set. Set it to the number of frames.")
            return VideoTexts(name, source, config, text, image_size, frames)
        return ImageTexts(name, source, config, text, image_size)

    if config.clean is None:
        return stream(opened(config.shards))
    return Mixture(stream(opened(config.shards)), stream(opened(config.clean.shards)), config.clean.probability)
