"""From a recipe's stream settings to the stream: the one place that knows all kinds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import UserError
from dataset.concept_text import ConceptTexts
from dataset.concepts import ConceptStream
from dataset.config import (
    ImageTextStream,
    PatchMaskingConfig,
    RegionTextStream,
    StorageSettings,
    StreamConfig,
    TokenizerConfig,
    TrainingStream,
    VideoTextStream,
)
from dataset.parallel_config import ParallelTextStream
from dataset.patch_masking import PatchSide
from dataset.phrases import PhraseVocabulary
from dataset.records import RecordSource, open_source
from dataset.storage import Storage
from dataset.streams.base import Stream, TextSide
from dataset.streams.concepts import Concepts
from dataset.streams.image import Images
from dataset.streams.image_text import ImageTexts
from dataset.streams.mixture import Mixture
from dataset.streams.parallel_text import ParallelTexts
from dataset.streams.region_text import RegionTexts
from dataset.streams.text import Texts
from dataset.streams.unpaired_config import ImageStream, TextStream
from dataset.streams.video_text import VideoTexts

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

    def hiding(masking: PatchMaskingConfig) -> PatchSide:
        return PatchSide(image_size // patch_size, masking)

    def stream(source: RecordSource) -> Stream:
        match config:
            case TextStream():
                return Texts(name, source, config, TextSide(tokenizer, config.max_tokens, config.masking, texts.padding))
            case ParallelTextStream():
                side = TextSide(tokenizer, config.max_tokens or texts.max_tokens, config.masking, texts.padding)
                return ParallelTexts(name, source, config, side)
            case ImageStream():
                return Images(name, source, config, image_size, hiding(config.patch_masking))
            case ConceptStream():
                vocabulary = PhraseVocabulary.load(Path(config.phrases.vocabulary))
                words = ConceptTexts(tokenizer, vocabulary, texts.max_tokens, config.phrases.reserve, config.tags.max_tokens)
                return Concepts(name, source, config, words, image_size)
            case RegionTextStream():
                return RegionTexts(name, source, config, written(config), image_size, patch_size)
            case VideoTextStream():
                if frames is None:
                    raise UserError(f"streams.{name} is of clips, but model.vision.frames is not set. Set it to the number of frames.")
                return VideoTexts(name, source, config, written(config), image_size, frames)
            case ImageTextStream():
                patches = hiding(config.patch_masking) if config.objectives.get("mim") else None
                return ImageTexts(name, source, config, written(config), image_size, patches)
        raise TypeError(f"no stream for {type(config).__name__}")

    def written(settings: StreamConfig) -> TextSide:
        return TextSide(tokenizer, texts.max_tokens, settings.masking, texts.padding)

    store = Storage(storage)
    first = stream(_records(config, config.shards, store))
    if config.clean is None:
        return first
    return Mixture(first, stream(_records(config, config.clean.shards, store)), config.clean.probability)


def _records(config: TrainingStream, shards: str | list[str], storage: Storage) -> RecordSource:
    """The records of some of a stream's shards."""
    patterns = [shards] if isinstance(shards, str) else shards
    if not isinstance(config, (StreamConfig, ImageStream)):
        return open_source(patterns, need_image=False, storage=storage)
    # clips come as files of their own or in the annotation, regions possibly as features
    pixels = not isinstance(config, VideoTextStream) and not (isinstance(config, ConceptStream) and config.regions.source == "features")
    return open_source(patterns, image_key=config.image_key, image_root=config.image_root, need_image=pixels, storage=storage)
