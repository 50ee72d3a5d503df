"""Training data made from a config alone: random pixels, texts of realistic lengths, random boxes. No file and no tokenizer is needed.

Samples are made here; batches are made of them by the real streams' own `collate`, so that padding, masking, groups and region rows are
what a run would compute.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
from torch import Tensor
from transformers import BertTokenizer, PreTrainedTokenizerBase

from common.errors import UserError
from dataset.boxes import Box
from dataset.config import ImageTextStream, RegionTextStream, RetrievalData, StreamConfig
from dataset.parallel_config import ParallelTextStream
from dataset.patch_masking import PatchSide
from dataset.records import RecordSource
from dataset.streams.base import NO_IMAGE, ROWS_PER_RECORD, Sample, Stream, TextRow, TextSide
from dataset.streams.image import Images
from dataset.streams.image_text import ImageTexts
from dataset.streams.parallel_text import ParallelTexts
from dataset.streams.region_text import RegionTexts
from dataset.streams.text import Texts
from dataset.streams.unpaired_config import ImageStream, TextStream
from dataset.tasks.grounding import expression_tensors
from dataset.tasks.grounding_config import GroundingData
from dataset.tokenizers import SPECIAL_TOKENS
from engine.config.schema import RunConfig

RECORDS = 1 << 20
"""Length of a stream: no step of a measurement repeats a sample of another."""


@dataclass(frozen=True)
class TextLengths:
    """Tokens of a text, [CLS] and [SEP] counted: a logarithmic normal distribution above a least length, rounded."""

    mean: float
    std: float
    least: int
    most: int = 40

    def draw(self, rng: np.random.Generator, max_tokens: int) -> int:
        """One length, at most `max_tokens`."""
        above = self.mean - self.least
        variance = math.log1p((self.std / above) ** 2)
        value = self.least + rng.lognormal(math.log(above) - variance / 2, math.sqrt(variance))
        return min(round(value), self.most, max_tokens)


CAPTIONS = TextLengths(mean=12.0, std=2.7, least=7)
"""COCO's captions have mean 12.6 and standard deviation 2.6 (795 of them, words + 2; 10 to 17 from the 5th to the 95th of a hundred,
longest 42). This shape, at a mean of 12."""
PHRASES = TextLengths(mean=5.0, std=1.8, least=3)
"""Region texts: from the name of an object, one word, to a phrase."""


SENTENCES = TextLengths(mean=25.0, std=10.0, least=6, most=64)
"""Sentences of parallel text; an assumption, nobody measured it."""


class _Words:
    """Draws texts of a wanted number of tokens for a tokenizer of `numbered_tokenizer`."""

    def __init__(self, vocab_size: int, lengths: TextLengths, fixed: int | None, max_tokens: int) -> None:
        self.vocab_size = vocab_size
        self.lengths = lengths
        self.fixed = fixed
        self.max_tokens = max_tokens

    def draw(self, rng: np.random.Generator) -> str:
        tokens = self.lengths.draw(rng, self.max_tokens) if self.fixed is None else self.fixed
        return " ".join(f"w{number}" for number in rng.integers(len(SPECIAL_TOKENS), self.vocab_size, size=max(tokens - 2, 1)).tolist())


class SyntheticImageTexts(ImageTexts):
    """Random images with a caption each, or two."""

    def __init__(
        self, name: str, config: ImageTextStream, text: TextSide, image_size: int, words: _Words, patches: PatchSide | None = None
    ) -> None:
        super().__init__(name, _NOTHING, config, text, image_size, patches)
        self.words = words

    def __len__(self) -> int:
        return RECORDS

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        rows = tuple(TextRow(self.words.draw(rng), index * ROWS_PER_RECORD) for _ in range(1 + self.paired))
        return Sample(str(index), _pixels(self.image_size, rng), rows, rng)


class SyntheticTexts(Texts):
    """Random documents that fill their rows."""

    def __init__(self, name: str, config: TextStream, text: TextSide, words: _Words) -> None:
        super().__init__(name, _NOTHING, config, text)
        self.words = words

    def __len__(self) -> int:
        return RECORDS

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        return Sample(str(index), NO_IMAGE, (TextRow(self.words.draw(rng), index * ROWS_PER_RECORD),), rng)


class SyntheticImages(Images):
    """Random images without texts."""

    def __init__(self, name: str, config: ImageStream, image_size: int, patches: PatchSide) -> None:
        super().__init__(name, _NOTHING, config, image_size, patches)

    def __len__(self) -> int:
        return RECORDS

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        return Sample(str(index), _pixels(self.image_size, rng), (), rng)


class SyntheticExpressions(SyntheticImageTexts):
    """Random images with a text and its box each."""

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        row = TextRow(self.words.draw(rng), index, _box(self.image_size, rng))
        return Sample(str(index), _pixels(self.image_size, rng), (row,), rng)

    def collate(self, groups: list[list[Sample]], rngs: list[np.random.Generator]) -> dict[str, Tensor]:
        return expression_tensors(groups, self.text, self.image_size)


class SyntheticParallelTexts(ParallelTexts):
    """Pairs of texts of random words."""

    def __init__(self, name: str, config: ParallelTextStream, text: TextSide, words: _Words) -> None:
        super().__init__(name, _NOTHING, config, text)
        self.words = words

    def __len__(self) -> int:
        return RECORDS

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        return Sample(str(index), NO_IMAGE, tuple(TextRow(self.words.draw(rng), index * ROWS_PER_RECORD) for _ in range(2)), rng)


class SyntheticRegionTexts(RegionTexts):
    """Random images with as many described boxes each as fill the batch."""

    def __init__(
        self, name: str, config: RegionTextStream, text: TextSide, sizes: tuple[int, int], words: _Words, captions: _Words
    ) -> None:
        super().__init__(name, _NOTHING, config, text, *sizes)
        self.words = words
        self.captions = captions

    def __len__(self) -> int:
        return RECORDS

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        count = math.ceil(self.config.batch_size / self.config.max_images)
        first = index * ROWS_PER_RECORD
        rows = [TextRow(self.captions.draw(rng), first)] if self.config.image_caption else []
        rows += [
            TextRow(self.words.draw(rng), first + 1 + number, _box(self.image_size, rng)) for number in range(max(count - len(rows), 1))
        ]
        return Sample(str(index), _pixels(self.image_size, rng), tuple(rows), rng)


def synthetic_streams(config: RunConfig, fixed_length: int | None = None) -> dict[str, Stream]:
    """A stream of synthetic data in the place of each that the config names.

    Args:
        config: of a task whose data is images with texts.
        fixed_length: tokens of every text; None: as `CAPTIONS` and `PHRASES`.

    Raises:
        UserError: the length does not fit, or there is no synthetic data for the task.
    """
    longest = config.tokenizer.max_tokens
    if fixed_length is not None and not 3 <= fixed_length <= longest:
        raise UserError(f"--fixed-length {fixed_length}: must be between 3 and tokenizer.max_tokens, {longest}.")
    text = config.model.text
    tokenizer = numbered_tokenizer(text.vocab_size, text.pad_token_id)
    captions, phrases = (_Words(text.vocab_size, lengths, fixed_length, longest) for lengths in (CAPTIONS, PHRASES))
    vision = config.model.vision
    sizes = vision.image_size, vision.stride
    streams: dict[str, Stream] = {}
    for name, settings in config.batches().items():
        masking = settings.masking if isinstance(settings, (StreamConfig, TextStream, ParallelTextStream)) else None
        side = TextSide(tokenizer, longest, masking, config.tokenizer.padding)
        match settings:
            case RegionTextStream():
                streams[name] = SyntheticRegionTexts(name, settings, side, sizes, phrases, captions)
            case ImageTextStream():
                patches = PatchSide(vision.grid, settings.patch_masking) if settings.objectives.get("mim") else None
                streams[name] = SyntheticImageTexts(name, settings, side, vision.image_size, captions, patches)
            case TextStream():
                rows = TextSide(tokenizer, settings.max_tokens, settings.masking, config.tokenizer.padding)
                documents = _Words(text.vocab_size, CAPTIONS, settings.max_tokens, settings.max_tokens)
                streams[name] = SyntheticTexts(name, settings, rows, documents)
            case ImageStream():
                streams[name] = SyntheticImages(name, settings, vision.image_size, PatchSide(vision.grid, settings.patch_masking))
            case ParallelTextStream():
                side.max_tokens = settings.max_tokens or longest
                sentences = _Words(text.vocab_size, SENTENCES, fixed_length, side.max_tokens)
                streams[name] = SyntheticParallelTexts(name, settings, side, sentences)
            case RetrievalData():
                streams[name] = SyntheticImageTexts(name, _as_stream(settings), side, vision.image_size, captions)
            case GroundingData():
                streams[name] = SyntheticExpressions(name, _as_stream(settings), side, vision.image_size, phrases)
            case _:
                raise UserError(f"--data synthetic: there is none for {name} of the task {config.task} yet. Take --data real.")
    return streams


def numbered_tokenizer(vocab_size: int, pad_id: int = 0) -> PreTrainedTokenizerBase:
    """A tokenizer that reads "w5 w17" as the tokens 5 and 17; `pad_id` is the padding's number, the other special tokens are next to it."""
    special = [token for token in SPECIAL_TOKENS if token != "[PAD]"]
    special.insert(min(pad_id, len(special)), "[PAD]")
    vocabulary = {token: number for number, token in enumerate(special)}
    vocabulary |= {f"w{number}": number for number in range(len(special), vocab_size)}
    return BertTokenizer(vocab=vocabulary, do_lower_case=True)


def _as_stream(data: RetrievalData | GroundingData) -> ImageTextStream:
    """Batch and groups of a task's data, as those of a stream of single pairs."""
    return ImageTextStream(shards=[], batch_size=data.batch_size, groups=data.groups)


def _pixels(side: int, rng: np.random.Generator) -> np.ndarray:
    """Noise, uint8 [side, side, 3]."""
    return np.frombuffer(rng.bytes(side * side * 3), dtype=np.uint8).reshape(side, side, 3)


def _box(side: int, rng: np.random.Generator) -> Box:
    """A box within the image, a fifth to four fifths of its side long."""
    width, height = rng.uniform(0.2, 0.8, size=2) * side
    x, y = rng.random(2) * (side - np.array([width, height]))
    return float(x), float(y), float(width), float(height)


_NOTHING = cast(RecordSource, ())
