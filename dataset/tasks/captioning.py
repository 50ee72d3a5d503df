"""Captioning: training captions as what comes next after what, and the images of an evaluation split.

Keys of a training batch (B images, L tokens of a caption with its prompt, J predicted tokens):

    image              uint8 [B, 3, S, S]
    text_ids           int64 [B, L]: start token, prompt, caption, end token; where tokens are predicted at a [MASK], with these
    text_places        int64 [B, L]: place of each token in its caption; a [MASK] that was put in has that of the token behind it
    text_inserted      bool [B, L]: True for a [MASK] that was put in
    predict_positions  int64 [B, J]: where a token is predicted
    predict_labels     int64 [B, J]: which one; IGNORED pads

and of self-critical training image and image_index int64 [B], the number of the image among those of the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from common.labels import IGNORED
from dataset.config import MaskingConfig
from dataset.masking import MaskVocabulary, choose_positions
from dataset.streams.base import Sample, TextRow, TextSide, image_tensor, naming, single_rows
from dataset.tasks.captioning_config import CaptionData
from dataset.tasks.files import JsonStream
from dataset.text import caption_texts, names_a_side, pick_caption, pre_caption
from dataset.tokenizers import pad_rows, padded_length, token_lists
from dataset.transforms import augment_image, read_picture

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Learning = Literal["causal", "masked", "drawn"]
"""Where the next token is predicted, at the last token or at a [MASK]; or that captions are drawn, and batches hold images alone."""


@dataclass(frozen=True)
class CaptionTokens:
    """One caption as it is learned."""

    ids: list[int]
    places: list[int]
    inserted: list[bool]
    positions: list[int]
    labels: list[int]


class CaptionTrain(JsonStream):
    """A stream of images with captions.

    Args, errors: as `JsonStream`; files hold [{image, caption, image_id}].
        learning: see `Learning`; what is drawn comes image by image, not caption by caption.
    """

    def __init__(self, config: CaptionData, learning: Learning, text: TextSide, image_size: int, name: str = "captions") -> None:
        super().__init__(config, ("image", "caption", "image_id"), text, image_size, name)
        self.config, self.learning = config, learning
        self.prompt = prompt_tokens(text.tokenizer, config.prompt)
        self.vocabulary = MaskVocabulary.of(text.tokenizer)
        numbers: dict[str, int] = {}
        self.image_numbers = [numbers.setdefault(str(record["image_id"]), len(numbers)) for _, _, record in self.records]
        self.references: list[list[str]] = [[] for _ in numbers]
        first: dict[int, int] = {}
        for index, (number, (_, _, record)) in enumerate(zip(self.image_numbers, self.records, strict=True)):
            self.references[number] += caption_texts(record["caption"])
            first.setdefault(number, index)
        if learning == "drawn":
            self.records = [self.records[index] for index in first.values()]
            self.image_numbers = list(first)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        file, number, record = self.records[index]
        where = f"{file}, record {number}"
        config, augmentation = self.config, self.config.augmentation
        may_flip = not (augmentation.careful_flip and names_a_side(caption_texts(record["caption"])))
        with naming(where):
            caption = pick_caption(record["caption"], rng)
            caption = pre_caption(caption, config.max_words, config.punctuation) if config.normalize else caption
            image = read_picture(Path(config.image_root) / record["image"], config.max_pixels, augmentation.decode)
            pixels = augment_image(image, self.image_size, augmentation, rng, may_flip)
        return Sample(where, pixels, (TextRow(caption, self.image_numbers[index]),), rng)

    def collate(self, groups: list[list[Sample]], rngs: list[np.random.Generator]) -> dict[str, Tensor]:
        images, rows = single_rows(groups)
        pixels = image_tensor(images)
        if self.learning == "drawn":
            return {"image": pixels, "image_index": torch.tensor([placed.row.sample_id for placed in rows])}
        texts = [f"{self.config.prompt} {placed.row.text}".strip() for placed in rows]
        captions = []
        for ids, placed in zip(token_lists(self.text.tokenizer, texts, self.text.max_tokens), rows, strict=True):
            if self.learning == "causal":
                captions.append(causal_tokens(ids, len(self.prompt)))
            else:
                chosen = masked_positions(ids, len(self.prompt), self.vocabulary, self.config.masking, placed.rng)
                captions.append(masked_tokens(ids, chosen, self.vocabulary.mask_id, self.config.inserted))
        return {"image": pixels} | caption_tensors(captions, self.text.tokenizer)


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """The start token and the prompt."""
    return token_lists(tokenizer, [prompt], 512)[0][:-1]


def causal_tokens(ids: Sequence[int], prompt: int) -> CaptionTokens:
    """A caption whose every token but those of the prompt, `prompt` in number, is predicted from the last token before it."""
    places = list(range(len(ids)))
    return CaptionTokens(list(ids), places, [False] * len(ids), places[prompt - 1 : -1], list(ids[prompt:]))


def masked_positions(
    ids: Sequence[int], prompt: int, vocabulary: MaskVocabulary, config: MaskingConfig, rng: np.random.Generator
) -> list[int]:
    """Which tokens of a caption are predicted, chosen as in masked language modelling among those behind the prompt."""
    behind = choose_positions([ids[0], *ids[prompt:]], vocabulary, config, rng)
    return [position + prompt - 1 for position in behind]


def masked_tokens(ids: Sequence[int], chosen: Sequence[int], mask_id: int, inserted: bool) -> CaptionTokens:
    """A caption whose chosen tokens are predicted at a [MASK] before them, or in their place."""
    labels = [ids[position] for position in chosen]
    if not inserted:
        hidden = set(chosen)
        masked = [mask_id if place in hidden else token for place, token in enumerate(ids)]
        return CaptionTokens(masked, list(range(len(ids))), [False] * len(ids), list(chosen), labels)
    before = set(chosen)
    entries = [entry for place, token in enumerate(ids) for entry in _with_mask(place, token, mask_id, place in before)]
    tokens, places, masks = (list(column) for column in zip(*entries, strict=True))
    return CaptionTokens(tokens, places, masks, [position for position, mask in enumerate(masks) if mask], labels)


def _with_mask(place: int, token: int, mask_id: int, chosen: bool) -> list[tuple[int, int, bool]]:
    return [*([(mask_id, place, True)] if chosen else []), (token, place, False)]


def caption_tensors(captions: Sequence[CaptionTokens], tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
    """Captions as the tensors of a batch; padding stands at the last place, where no token sees it."""
    pad_id = tokenizer.pad_token_id
    assert isinstance(pad_id, int), "load_tokenizer checks this"
    longest = max(len(caption.ids) for caption in captions)
    width, most = padded_length(longest, longest + 3), max(1, *(len(caption.labels) for caption in captions))
    return {
        "text_ids": pad_rows([caption.ids for caption in captions], width, pad_id),
        "text_places": pad_rows([caption.places for caption in captions], width, 0),
        "text_inserted": pad_rows([[int(one) for one in caption.inserted] for caption in captions], width, 0).bool(),
        "predict_positions": pad_rows([caption.positions for caption in captions], most, 0),
        "predict_labels": pad_rows([caption.labels for caption in captions], most, IGNORED),
    }
