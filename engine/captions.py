"""What captioning needs of tokens and words in one place: the describer of a run, captions as texts, and rewards of drawn ones."""

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from common.errors import UserError
from dataset.tasks.captioning import CaptionTrain, prompt_tokens
from engine.config.captioning import CaptionEvaluation, CaptioningConfig
from evaluation.captioning import words_of
from evaluation.cider import CiderD
from models.generation import BeamSettings
from models.tasks.captioning import Describer

END_WORD = "<eos>"
"""Ends captions and references alike where they are rewarded, so that ending in the right place earns something."""
UNIT_OFFSET = 5
"""Counted to every caption's length by the rule of arXiv 1609.08144."""


def describer_of(config: CaptioningConfig, tokenizer: PreTrainedTokenizerBase) -> Describer:
    """What writes captions.

    Raises:
        UserError: the tokenizer has no [SEP] that ends them.
    """
    assert config.data is not None, "the domain stage writes none"
    end, mask = tokenizer.sep_token_id, tokenizer.mask_token_id
    if not isinstance(end, int) or not isinstance(mask, int):
        raise UserError("tokenizer.path: the tokenizer has no [SEP] or no [MASK], by which captions are written.")
    return Describer(tuple(prompt_tokens(tokenizer, config.data.prompt)), end, mask if config.prediction == "masked" else None)


def beam_settings(evaluation: CaptionEvaluation, prompt: int) -> BeamSettings:
    """How captions behind a prompt of so many tokens are searched for."""
    refill = evaluation.search == "refilled"
    return BeamSettings(
        beams=evaluation.beams,
        max_length=evaluation.max_tokens,
        length_penalty=evaluation.length_penalty,
        length_offset=prompt if refill else UNIT_OFFSET,
        min_length=evaluation.min_tokens,
        no_repeat=evaluation.no_repeat,
        repetition_penalty=evaluation.repetition_penalty,
        refill=refill,
    )


def texts_of(tokenizer: PreTrainedTokenizerBase, tokens: Tensor, end: int) -> list[str]:
    """Captions [.., T] as texts, up to their end."""
    rows = [row[: row.index(end)] if end in row else row for row in tokens.flatten(0, -2).tolist()]
    return [text.strip() for text in tokenizer.batch_decode(rows, skip_special_tokens=True)]


class CiderReward:
    """CIDEr-D of drawn captions, with the statistics of the training captions; see `models.tasks.captioning.Reward`.

    Args:
        config: of the run.
        open_stream: gives the training data, opened when a first caption is to be judged.
        load: gives the tokenizer.
    """

    def __init__(
        self, config: CaptioningConfig, open_stream: Callable[[], CaptionTrain], load: Callable[[], PreTrainedTokenizerBase]
    ) -> None:
        self.config, self.open_stream, self.load = config, open_stream, load

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The run's."""
        return self.load()

    @cached_property
    def _describer(self) -> Describer:
        return describer_of(self.config, self.tokenizer)

    @property
    def describer(self) -> Describer:
        """What writes the captions."""
        return self._describer

    @cached_property
    def scorer(self) -> CiderD:
        """With the references of all training images, by number."""
        return CiderD([[rewarded_words(text) for text in texts] for texts in self.open_stream().references])

    def __call__(self, tokens: Tensor, images: Tensor) -> Tensor:
        """Rewards [B, K] of captions [B, K, T] of images by number [B]."""
        texts, each = texts_of(self.tokenizer, tokens, self.describer.end), tokens.shape[1]
        owners = [number for number in images.tolist() for _ in range(each)]
        return torch.tensor(self.judge(texts, owners), device=tokens.device).view(tokens.shape[:2])

    def judge(self, captions: Sequence[str], images: Sequence[int]) -> list[float]:
        """CIDEr-D, 0 to 10, of each caption of an image by number."""
        return [self.scorer.score(rewarded_words(caption), image) for caption, image in zip(captions, images, strict=True)]


def rewarded_words(text: str) -> list[str]:
    """The words of a caption and its end."""
    return [*words_of(text), END_WORD]
