"""Question answering: training questions with weighted answers, and the questions of an evaluation split.

Keys of a training batch (B questions, L tokens of a question, A answers of all questions, J tokens of an answer):

    image           uint8 [B, 3, S, S]; of clips [B, F, 3, S, S]
    text_ids        int64 [B, L], text_mask bool [B, L]: the questions
    answer_owner    int64 [A]: which question each answer belongs to
    answer_weights  float32 [A]
    answer_ids      int64 [A, J], answer_mask bool [A, J]: start token, answer, end token; where a decoder learns
    answer_labels   int64 [A]: the number of the answer, IGNORED where it has none; where a class is learned
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from common.errors import BadRecord, UserError
from common.labels import IGNORED
from dataset.clips import ClipReader, augment_clip, read_still, squash_clip
from dataset.streams.base import Sample, TextRow, TextSide, image_tensor, naming
from dataset.tasks.files import warn_of_count
from dataset.tasks.vqa_config import VqaData
from dataset.tasks.vqa_files import Question, count_of, read_questions
from dataset.text import names_a_side, pre_question
from dataset.tokenizers import encode_texts, pad_texts, token_lists
from dataset.transforms import augment_image

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class VqaTrain:
    """A stream of questions with answers. Questions whose answers are secret or empty are left out.

    Args:
        config: files, batch size and groups.
        text: makes the text tensors, without masking.
        image_size: side of the model's input in pixels.
        frames: of a clip; None where records are images.
        labels: the number of each answer where a class is learned; None where a decoder learns to write them.
        name: of the stream.

    Raises:
        UserError: a file is missing or malformed, or has no answers at all.
    """

    def __init__(
        self,
        config: VqaData,
        text: TextSide,
        image_size: int,
        frames: int | None,
        labels: Mapping[str, int] | None = None,
        name: str = "questions",
    ) -> None:
        self.name, self.config, self.text = name, config, text
        self.image_size, self.labels = image_size, labels
        self.clips = clip_reader(config, frames)
        self.images_per_batch = self.rows_per_batch = config.batch_size
        self.groups = config.groups
        files = [config.train] if isinstance(config.train, str) else config.train
        self.records = [(file, number, question) for file in files for number, question in enumerate(read_questions(Path(file)))]
        self.records = [record for record in self.records if record[2].weights]
        if not self.records:
            raise UserError(f"{', '.join(files)}: no question has an answer, so there is nothing to train on.")
        warn_of_count(", ".join(files), "questions", count_of(self.questions), config.expected_of("train"))

    @property
    def questions(self) -> list[Question]:
        """All of them, in order."""
        return [question for _, _, question in self.records]

    def __len__(self) -> int:
        return len(self.records)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        file, number, question = self.records[index]
        where = f"{file}, record {number}"
        config = self.config
        augmentation = config.augmentation
        text = pre_question(question.text, config.max_words, config.punctuation)
        may_flip = not (augmentation.careful_flip and names_a_side([question.text, *question.answers]))
        with naming(where):
            path = image_path(question, config)
            if self.clips is None:
                image = read_still(path, config.max_pixels, "exact")
                pixels = augment_image(image, self.image_size, augmentation, np.random.default_rng(rng.integers(2**63)), may_flip)
            else:
                pixels = augment_clip(self.clips.file(path, rng), self.image_size, augmentation, config.frame_changes, rng, may_flip)
        return Sample(where, pixels, (TextRow(text, index),), rng)

    def collate(self, groups: list[list[Sample]], rngs: list[np.random.Generator]) -> dict[str, Tensor]:
        samples = [sample for group in groups for sample in group]
        rows = [sample.rows[0] for sample in samples]
        tokens = token_lists(self.text.tokenizer, [row.text for row in rows], self.text.max_tokens)
        ids, mask = pad_texts(self.text.tokenizer, tokens, self.text.max_tokens, to_longest=self.text.padding != "max")
        images = image_tensor([sample.image for sample in samples])
        return {"image": images, "text_ids": ids, "text_mask": mask} | self._answers([row.sample_id for row in rows])

    def _answers(self, indices: Sequence[int]) -> dict[str, Tensor]:
        given = [(owner, *answer) for owner, index in enumerate(indices) for answer in self.records[index][2].weights]
        tensors = {
            "answer_owner": torch.tensor([owner for owner, _, _ in given]),
            "answer_weights": torch.tensor([weight for _, _, weight in given], dtype=torch.float32),
        }
        texts = [answer for _, answer, _ in given]
        if self.labels is not None:
            return tensors | {"answer_labels": torch.tensor([self.labels.get(answer, IGNORED) for answer in texts])}
        ids, mask = answer_tokens(self.text.tokenizer, texts, self.text.max_tokens)
        return tensors | {"answer_ids": ids, "answer_mask": mask}


class VqaItem(TypedDict):
    """One question of an evaluation split."""

    image: Tensor
    """uint8 [3, S, S], squashed to the square; of a clip [F, 3, S, S]."""
    text: str
    question: Question


class VqaSet(Dataset[VqaItem]):
    """The questions of an evaluation split.

    Args:
        split: validation, test, or of several test sets test/NAME.
        config: files, folders and how questions are read.
        image_size: side of the model's input in pixels.
        frames: of a clip; None where records are images.

    Raises:
        UserError: the file is missing or malformed, or an image unreadable: evaluation skips nothing.
    """

    def __init__(self, split: str, config: VqaData, image_size: int, frames: int | None) -> None:
        file = config.file_of(split)
        assert file is not None, "a split that there is"
        self.file, self.config, self.image_size = Path(file), config, image_size
        self.clips = clip_reader(config, frames)
        self.questions = read_questions(self.file)
        warn_of_count(file, "questions", count_of(self.questions), config.expected_of(split))

    def __len__(self) -> int:
        return len(self.questions)

    @property
    def answered(self) -> bool:
        """Whether all answers are known."""
        return all(question.answers for question in self.questions)

    def __getitem__(self, index: int) -> VqaItem:
        question = self.questions[index]
        try:
            path = image_path(question, self.config)
            if self.clips is None:
                pixels = squash_clip([read_still(path, self.config.max_pixels, "exact")], self.image_size)[0]
            else:
                pixels = squash_clip(self.clips.file(path, None), self.image_size)
        except BadRecord as error:
            raise UserError(f"{self.file}, record {index}: {error}.") from error
        return {
            "image": image_tensor([pixels])[0],
            "text": pre_question(question.text, self.config.max_test_words, self.config.punctuation),
            "question": question,
        }


class VqaBatch(TypedDict):
    """Some items of a `VqaSet`, ready for the model."""

    image: Tensor
    """uint8 [B, 3, S, S]; of clips [B, F, 3, S, S]."""
    text_ids: Tensor
    """int64 [B, L]."""
    text_mask: Tensor
    """bool [B, L], True = token."""
    items: list[VqaItem]


def collate_vqa(items: list[VqaItem], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> VqaBatch:
    """Items as one batch."""
    ids, mask = encode_texts(tokenizer, [item["text"] for item in items], max_tokens)
    return {"image": torch.stack([item["image"] for item in items]), "text_ids": ids, "text_mask": mask, "items": items}


def answer_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int) -> tuple[Tensor, Tensor]:
    """Answers as a decoder reads them, start token, answer, end token: (ids int64 [A, J], mask bool [A, J])."""
    end = tokenizer.sep_token_id
    assert isinstance(end, int), "tokenizers of texts have one"
    rows = token_lists(tokenizer, texts, max_tokens)
    return pad_texts(tokenizer, [row if row[-1] == end else [*row[: max_tokens - 1], end] for row in rows], max_tokens)


def image_path(question: Question, config: VqaData) -> Path:
    """Where a question's image or clip is; absolute paths stay as they are."""
    return Path(config.image_roots.get(question.source, config.image_root)) / question.image


def clip_reader(config: VqaData, frames: int | None) -> ClipReader | None:
    """What reads the clips that questions are about; None where they are about images."""
    return None if frames is None else ClipReader(frames, config.max_pixels, config.decoder)
