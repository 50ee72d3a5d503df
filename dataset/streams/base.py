"""What every stream has in common: samples, rows, and the tensors made from them.

Shapes: B images, R rows (texts), L tokens, M hidden tokens, S image side in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from common.errors import BadRecord
from common.labels import IGNORED
from dataset.boxes import Box
from dataset.config import MaskingConfig, Padding, TaskData, TrainingStream
from dataset.masking import MaskVocabulary, mask_tokens
from dataset.packing import text_bins
from dataset.text import EmptyCaption, Text
from dataset.tokenizers import pad_rows, pad_texts, token_lists

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from dataset.records import RecordSource

ROWS_PER_RECORD = 1 << 16
"""Sample ids are record number * this + the number of the text within the record."""
NO_IMAGE = np.zeros((0, 0, 3), dtype=np.uint8)
"""The image of samples that have none."""


@dataclass(frozen=True)
class TextRow:
    """One text of a sample."""

    text: Text
    sample_id: int
    """Rows with equal ids describe the same thing: they are never each other's negatives."""
    box: Box | None = None
    """(x, y, w, h) in pixels of the sample's square image; None: the text describes the whole image."""


@dataclass(frozen=True)
class Sample:
    """One image with its texts, transformed and ready to be collated."""

    key: str
    image: np.ndarray
    """uint8 [S, S, 3], RGB; of a clip [F, S, S, 3]."""
    rows: tuple[TextRow, ...]
    rng: np.random.Generator
    """The sample's own generator; masks and negative draws of its rows continue it."""


@dataclass(frozen=True)
class PlacedRow:
    """A row chosen for the batch."""

    row: TextRow
    image: int
    """Which image of the micro-batch it belongs to."""
    group: int
    """Which group of the micro-batch it belongs to."""
    rng: np.random.Generator


class Stream(Protocol):
    """A source of training samples of one kind. Holds no state that changes between samples."""

    name: str
    images_per_batch: int
    """Images of one optimizer step, over all ranks."""
    rows_per_batch: int
    """Texts of one optimizer step, over all ranks."""
    groups: int | None
    """Groups of one optimizer step, over all ranks; None: one for each rank and micro-batch."""

    def __len__(self) -> int:
        """Number of records."""
        ...

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """The sample of record `index`, random in nothing but `rng`. Raises BadRecord."""
        ...

    def collate(self, groups: list[list[Sample]], rngs: list[np.random.Generator]) -> dict[str, Tensor]:
        """The batch of one micro-batch of one rank.

        Args:
            groups: the samples of each group.
            rngs: one generator for each group, for choices among its rows.
        """
        ...


class RecordStream:
    """What streams of records share: where the records are, and how many rows of them a step takes.

    Args:
        name: of the stream in the recipe.
        source: the records.
        config: its settings.
    """

    def __init__(self, name: str, source: RecordSource, config: TrainingStream | TaskData) -> None:
        self.name = name
        self.source = source
        self.images_per_batch = self.rows_per_batch = config.batch_size
        self.groups = config.groups

    def __len__(self) -> int:
        return len(self.source)


class TextSide:
    """Turns rows into text tensors.

    Args:
        tokenizer: as `load_tokenizer` gives it.
        max_tokens: longest sequence.
        masking: how to hide tokens; None: batches carry no masked texts.
        padding: see `Padding`.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, max_tokens: int, masking: MaskingConfig | None, padding: Padding = "packed"
    ) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.masking = masking
        self.padding: Padding = padding
        self.vocabulary = MaskVocabulary.of(tokenizer)

    def tensors(self, rows: Sequence[PlacedRow]) -> dict[str, Tensor]:
        """text_ids int64 [R, L], text_mask bool [R, L], sample_ids int64 [R], group int64 [R], negative_draws float32 [R, 2]; with
        masking text_ids_masked int64 [R, L], masked_positions int64 [R, M], mlm_labels int64 [R, M]; and packed text_bins int64 [K, W],
        see `text_bins`."""
        tokens = self._tokens(rows)
        ids, mask = pad_texts(self.tokenizer, tokens, self.max_tokens, to_longest=self.padding != "max")
        tensors = {
            "text_ids": ids,
            "text_mask": mask,
            "sample_ids": torch.tensor([placed.row.sample_id for placed in rows], dtype=torch.int64),
            "group": torch.tensor([placed.group for placed in rows], dtype=torch.int64),
            "negative_draws": torch.from_numpy(np.stack([placed.rng.random(2, dtype=np.float32) for placed in rows])),
        }
        if self.masking is not None:
            tensors |= self._masked(tokens, rows, self.masking, ids.shape[1])
        if self.padding == "packed":
            tensors["text_bins"] = text_bins([len(row) for row in tokens], ids.shape[1])
        return tensors

    def second(self, rows: Sequence[PlacedRow]) -> dict[str, Tensor]:
        """Of each row's second text: text_ids_2 int64 [R, K], text_mask_2 bool [R, K]; and packed text_bins_2 int64."""
        tokens = self._tokens(rows)
        ids, mask = pad_texts(self.tokenizer, tokens, self.max_tokens, to_longest=self.padding != "max")
        tensors = {"text_ids_2": ids, "text_mask_2": mask}
        if self.padding == "packed":
            tensors["text_bins_2"] = text_bins([len(row) for row in tokens], ids.shape[1])
        return tensors

    def joined(self, first: Sequence[PlacedRow], second: Sequence[PlacedRow]) -> dict[str, Tensor]:
        """Both texts in one row, [CLS] one [SEP] other [SEP], with hidden tokens in either: pair_ids_masked int64 [R, J], pair_mask bool
        [R, J], pair_masked_positions and pair_mlm_labels int64 [R, M]. J is below twice `max_tokens`."""
        assert self.masking is not None, "streams of parallel text have masking"
        tokens = [[*one, *other[1:]] for one, other in zip(self._tokens(first), self._tokens(second), strict=True)]
        _, mask = pad_texts(self.tokenizer, tokens, 2 * self.max_tokens, to_longest=self.padding != "max")
        masked = self._masked(tokens, first, self.masking, mask.shape[1])
        names = {"text_ids_masked": "pair_ids_masked", "masked_positions": "pair_masked_positions", "mlm_labels": "pair_mlm_labels"}
        return {"pair_mask": mask} | {names[name]: tensor for name, tensor in masked.items()}

    def _tokens(self, rows: Sequence[PlacedRow]) -> list[list[int]]:
        return token_lists(self.tokenizer, [placed.row.text for placed in rows], self.max_tokens)

    def _masked(self, tokens: list[list[int]], rows: Sequence[PlacedRow], masking: MaskingConfig, width: int) -> dict[str, Tensor]:
        masked = [mask_tokens(ids, self.vocabulary, masking, placed.rng) for ids, placed in zip(tokens, rows, strict=True)]
        most = max(1, *(len(text.positions) for text in masked))
        pad_id = self.tokenizer.pad_token_id
        assert isinstance(pad_id, int), "load_tokenizer checks this"
        return {
            "text_ids_masked": pad_rows([text.ids for text in masked], width, pad_id),
            "masked_positions": pad_rows([text.positions for text in masked], most, 0),
            "mlm_labels": pad_rows([text.labels for text in masked], most, IGNORED),
        }


def image_tensor(images: Sequence[np.ndarray]) -> Tensor:
    """Images uint8 [S, S, 3] as one tensor uint8 [B, 3, S, S], or clips [F, S, S, 3] as [B, F, 3, S, S]."""
    if images[0].ndim == 4:
        return image_tensor([frame for clip in images for frame in clip]).unflatten(0, (len(images), -1))
    height, width, channels = images[0].shape
    planes = np.empty((len(images), channels, height, width), dtype=np.uint8)
    for image, target in zip(images, planes, strict=True):
        cv2.split(image, list(target))  # writes into them; five times as fast as stacking and transposing
    return torch.from_numpy(planes)


def single_rows(groups: list[list[Sample]], place: int = 0) -> tuple[list[np.ndarray], list[PlacedRow]]:
    """The images of groups, and of each sample the one row at this place."""
    samples = [(group, sample) for group, members in enumerate(groups) for sample in members]
    rows = [PlacedRow(sample.rows[place], image, group, sample.rng) for image, (group, sample) in enumerate(samples)]
    return [sample.image for _, sample in samples], rows


@contextmanager
def naming(record: str) -> Iterator[None]:
    """Put the record's name before what is wrong with it."""
    try:
        yield
    except BadRecord as error:
        raise BadRecord(f"{record}: {error}", error.kind) from error
    except EmptyCaption as error:
        raise BadRecord(f"{record}: {error}") from error
