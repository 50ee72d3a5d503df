"""Visual question answering (X-VLM section 4.3; X2-VLM section 4.2): losses, and three ways to answer.

Ranking scores a list of answers with the decoder, generation writes an answer freely, classification chooses a class. The first two train
the same model in the same way.

Shapes: B questions with one image each, L tokens of a question, A answers of all questions, J tokens of an answer, N answers of a list,
k candidates of a question, H text width, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from common.distributed import GradientMode
from models.answering import AnsweringModel
from models.config import ModelConfig
from models.decoder import Decoder, Memory
from models.generation import BeamSettings, beam_search
from models.objectives.answers import answer_loss, answered, class_loss, sequence_losses
from models.reading import DecoderReader
from models.tasks.base import Batch, Task
from models.tasks.contrast import DIRECT, Contrast

LOSS = "train/answer"
TOKENS_AT_ONCE = 8192
"""Of answers that are scored together: bounds their logits, V numbers for each."""


class VQA(Task):
    """Fine-tuning on questions with weighted answers.

    Args:
        config: of the model.
        mode: see `GradientMode`.
        classes: number of answers to choose from; None trains a decoder that writes them.

    Keys of a batch (dataset/tasks/vqa.py): image; text_ids, text_mask [B, L]; answer_owner [A], answer_weights [A]; and answer_ids,
    answer_mask [A, J] for a decoder, answer_labels [A] for classes.
    """

    def __init__(self, config: ModelConfig, mode: GradientMode, classes: int | None = None) -> None:
        super().__init__()
        self.model = AnsweringModel(config, classes)
        self.mode: GradientMode = mode
        self.weights = {LOSS: 1.0}

    @property
    def answering(self) -> AnsweringModel:
        """The model, by its own type."""
        assert isinstance(self.model, AnsweringModel), "built as one"
        return self.model

    def forward(self, batches: Mapping[str, Batch], contrast: Contrast = DIRECT) -> dict[str, Tensor]:
        """Loss of one micro-batch, as "train/answer"."""
        batch, model = batches["train"], self.answering
        if model.decoder is None:
            logits = model.class_logits(batch["image"], batch["text_ids"], batch["text_mask"])
            return {LOSS: class_loss(logits, batch["answer_labels"], batch["answer_owner"], batch["answer_weights"], self.mode)}
        return {LOSS: decoder_loss(model, batch)}

    def row_counts(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        """Of classes the questions with an answer among them; otherwise all questions count."""
        batch = batches["train"]
        if self.mode == "paper" or self.answering.decoder is not None:
            return {}
        return {LOSS: answered(batch["answer_labels"], batch["answer_owner"], len(batch["text_ids"]))}


def decoder_loss(model: AnsweringModel, batch: Batch) -> Tensor:
    """Scalar loss of a decoder; see `VQA` for the batch."""
    decoder = model.answer_decoder()
    states = model.read_questions(batch["image"], batch["text_ids"], batch["text_mask"])
    memory = decoder.memory(states, batch["text_mask"]).of(batch["answer_owner"])
    logits = decoder.logits(decoder(batch["answer_ids"], batch["answer_mask"], memory))
    losses = sequence_losses(logits, batch["answer_ids"], batch["answer_mask"])
    return answer_loss(losses, batch["answer_weights"], len(states))


class AnswerList(NamedTuple):
    """Candidate answers as a decoder reads them: start token, answer, end token."""

    ids: Tensor
    """[N, J] padded."""
    mask: Tensor
    """[N, J] True for tokens."""

    def to(self, device: torch.device) -> "AnswerList":
        """The same on a device."""
        return AnswerList(self.ids.to(device), self.mask.to(device))


class Ranked(NamedTuple):
    """The answers of each question, the best first."""

    answer: Tensor
    """[B, k] numbers of answers."""
    probability: Tensor
    """[B, k] shares among the k; they sum to 1."""


@dataclass(frozen=True)
class Answers:
    """What was answered: the number of an answer of a list, or the tokens of a text."""

    confidence: Tensor
    """[B] the probability of the answer among those it was chosen from."""
    index: Tensor | None = None
    """[B]"""
    tokens: Tensor | None = None
    """[B, T], the end token after the text."""


@runtime_checkable
class Choosing(Protocol):
    """A model that may be asked to choose an answer."""

    def class_logits(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits [B, C] of questions, token ids [B, L] with mask [B, L], about images [B, .., 3, S, S]."""
        ...


class Answerer(Protocol):
    """A way to answer."""

    def __call__(self, model: Choosing, images: Tensor, ids: Tensor, mask: Tensor) -> Answers:
        """Answer questions, token ids [B, L] with mask [B, L], about images or clips [B, .., 3, S, S]."""
        ...


@dataclass(frozen=True)
class Ranking:
    """The answer of a list that the decoder finds likeliest."""

    answers: AnswerList
    top_k: int
    """Answers that are scored as a whole, the likeliest by their first token."""
    sees_padding: bool = False
    """Attend to the padding of questions as well, as X-FM's published evaluation (not its training) does."""

    @torch.no_grad()
    def __call__(self, model: Choosing, images: Tensor, ids: Tensor, mask: Tensor) -> Answers:
        """See `Answerer`."""
        assert isinstance(model, AnsweringModel), "the model that writes answers"
        decoder = model.answer_decoder()
        memory = decoder.memory(model.read_questions(images, ids, mask), None if self.sees_padding else mask)
        ranked = rank_answers(decoder, memory, self.answers.to(ids.device), self.top_k)
        return Answers(ranked.probability[:, 0], index=ranked.answer[:, 0])


@dataclass(frozen=True)
class Generation:
    """The answer that the decoder writes."""

    start: int
    """The token that a text starts with."""
    end: int
    settings: BeamSettings

    @torch.no_grad()
    def __call__(self, model: Choosing, images: Tensor, ids: Tensor, mask: Tensor) -> Answers:
        """See `Answerer`."""
        assert isinstance(model, AnsweringModel), "the model that writes answers"
        decoder = model.answer_decoder()
        memory = decoder.memory(model.read_questions(images, ids, mask), mask)
        start = torch.full((len(ids), 1), self.start, dtype=torch.int64, device=ids.device)
        written = beam_search(DecoderReader(decoder, memory), start, self.end, self.settings)
        return Answers(written.scores.exp(), tokens=written.tokens)


@dataclass(frozen=True)
class Classification:
    """The likeliest class."""

    @torch.no_grad()
    def __call__(self, model: Choosing, images: Tensor, ids: Tensor, mask: Tensor) -> Answers:
        """See `Answerer`."""
        best = model.class_logits(images, ids, mask).float().softmax(dim=1).max(dim=1)
        return Answers(best.values, index=best.indices)


@torch.no_grad()
def rank_answers(decoder: Decoder, memory: Memory, answers: AnswerList, top_k: int) -> Ranked:
    """Rank the answers of a list by the rule of the published code.

    The k answers with the likeliest first token are scored as a whole. As published, the first token counts twice: once from the choice of
    candidates, once within the whole.

    Args:
        decoder: as trained.
        memory: of the B questions, projected once for all candidates.
        answers: the list.
        top_k: at most the length of the list.
    """
    candidates, first = likeliest_first(decoder, memory, answers, top_k)
    total = first.log() + sequence_scores(decoder, memory, answers, candidates)
    probability, order = total.softmax(dim=1).topk(candidates.shape[1], dim=1)
    return Ranked(candidates.gather(1, order), probability)


def likeliest_first(decoder: Decoder, memory: Memory, answers: AnswerList, top_k: int) -> tuple[Tensor, Tensor]:
    """The answers with the likeliest first tokens, [B, k], and the probabilities of these tokens, [B, k]."""
    start = answers.ids[:1, :1].expand(len(memory), 1)  # [B, 1]
    logits = decoder.logits(decoder(start, None, memory))[:, 0]
    following = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(dim=1)  # [B, V]
    first, candidates = following[:, answers.ids[:, 1]].topk(min(top_k, len(answers.ids)), dim=1)
    return candidates, first


def sequence_scores(decoder: Decoder, memory: Memory, answers: AnswerList, candidates: Tensor) -> Tensor:
    """Log-probability of each candidate [B, k] as a whole, [B, k].

    Candidates of one length are read together, so that nothing is padded. A question with fewer of a length than another one reads some
    others in their place, whose scores are left out.
    """
    lengths = answers.mask.sum(dim=1)[candidates]  # [B, k]
    scores = torch.zeros(lengths.shape, dtype=decoder.embeddings.norm.weight.dtype, device=candidates.device)
    for length in lengths.unique().tolist():
        fits = lengths == length
        places = fits.int().argsort(dim=1, descending=True, stable=True)[:, : int(fits.sum(dim=1).max())]  # [B, m]
        at_once = max(1, TOKENS_AT_ONCE // (len(memory) * length))
        for part in places.split(at_once, dim=1):
            ids = answers.ids[candidates.gather(1, part), :length]  # [B, m, length]
            found = _log_probability(decoder, memory, ids.flatten(0, 1)).view(part.shape).to(scores.dtype)
            scores = scores.scatter(1, part, torch.where(fits.gather(1, part), found, scores.gather(1, part)))
    return scores


def _log_probability(decoder: Decoder, memory: Memory, ids: Tensor) -> Tensor:
    """Of texts [M, J] without padding, the M / B of each question one after another: [M]."""
    logits = decoder.logits(decoder(ids, None, memory)[:, :-1])
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return -F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none").sum(dim=1)
