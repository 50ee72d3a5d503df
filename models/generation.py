"""Writing texts token by token: beam search and sampling over anything that reads tokens and tells what may come next.

Shapes: B texts, K beams or samples of each, V vocabulary, P tokens of a prompt, T tokens written.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

NEVER = float("-inf")


class Reader(Protocol):
    """What writes: it has read some tokens of M texts."""

    def step(self, tokens: Tensor) -> Tensor:
        """Read more tokens of each text [M, P or 1]; returns the logits [M, V] of the next."""
        ...

    def reorder(self, rows: Tensor) -> None:
        """Go on with these of its texts, by number; there may be more of them than before."""
        ...


class Written(NamedTuple):
    """The best text of each beam search."""

    tokens: Tensor
    """[B, T] without the prompt; `end` closes a text, and what follows it is `end`, too."""
    scores: Tensor
    """[B] sum of log-probabilities, divided by (length_offset + length) to the power of `length_penalty`."""
    steps: Tensor
    """[B] tokens that its search looked at until it was over."""


class BeamSettings(NamedTuple):
    """How texts are searched for."""

    beams: int = 1
    """1 takes the likeliest token each time."""
    max_length: int = 10
    """Most tokens, `end` included."""
    length_penalty: float = 0.0
    """0 compares sums of log-probabilities, 1 with length_offset 0 means over tokens."""
    length_offset: int = 0
    """Counted to the length of every text: 5 is the rule of arXiv 1609.08144 but for a factor, the prompt's length that of transformers."""
    min_length: int = 0
    """Least tokens before `end`."""
    no_repeat: int = 0
    """No run of so many tokens is written twice; 0 allows all."""
    repetition_penalty: float = 1.0
    """Factor on the log-probability of tokens that the text or its prompt has already."""
    refill: bool = False
    """True: a text that ends gives its beam to the next best that grows on, its `end` does not count to its length, and the search is over
    once K have ended that are better than the best that still grows (transformers 4). False: it gives up its beam for good (s2s-ft)."""


class _Beams(NamedTuple):
    """Texts that grow."""

    texts: Tensor
    """[B, K, T]"""
    scores: Tensor
    """[B, K] sums of log-probabilities; NEVER: given up."""


class _Ended:
    """The best texts that have ended, of each search as many as it has beams."""

    def __init__(self, count: int, settings: BeamSettings, end: int, like: Tensor) -> None:
        self.settings, self.end = settings, end
        self.scores = torch.full((count, settings.beams), NEVER, dtype=like.dtype, device=like.device)
        self.texts = torch.full((count, settings.beams, settings.max_length), end, dtype=torch.int64, device=like.device)
        self.over = torch.zeros(count, dtype=torch.bool, device=like.device)
        self.steps = torch.full((count,), settings.max_length, device=like.device)

    def add(self, texts: Tensor, sums: Tensor, length: int) -> None:
        """Take texts [B, N, T] with sums of log-probabilities [B, N] that count as so long; NEVER is none."""
        sums = sums.masked_fill(self.over[:, None], NEVER)
        scores = torch.cat([self.scores, sums / self.divisor(length)], dim=1)
        texts = torch.cat([self.texts, F.pad(texts, (0, self.settings.max_length - texts.shape[2]), value=self.end)], dim=1)
        self.scores, best = scores.topk(self.settings.beams, dim=1)
        self.texts = texts.gather(1, best[..., None].expand(-1, -1, texts.shape[2]))

    def divisor(self, length: int) -> float:
        """What the sum of a text that counts as so long is divided by."""
        return max(self.settings.length_offset + length, 1) ** self.settings.length_penalty

    def finish(self, beams: _Beams, best_sum: Tensor, length: int) -> bool:
        """Note which searches are over; True if all are."""
        growing = beams.scores.max(dim=1).values
        if self.settings.refill:
            ends = self.scores[:, -1] >= best_sum / self.divisor(length - 1)
        else:
            ends = self.scores[:, 0] >= growing if self.settings.length_penalty == 0 else growing == NEVER  # sums only fall
        self.steps = self.steps.masked_fill((ends | (growing == NEVER)) & ~self.over, length)
        self.over = self.over | ends | (growing == NEVER)
        return bool(self.over.all())


@torch.no_grad()
def beam_search(reader: Reader, prompt: Tensor, end: int, settings: BeamSettings) -> Written:
    """Write the likeliest texts.

    Args:
        reader: has read nothing.
        prompt: [B, P] what each text begins with.
        end: the token that closes a text.
        settings: see there.
    """
    count = len(prompt)
    logits = reader.step(prompt)
    scores = torch.zeros(count, 1, dtype=torch.promote_types(logits.dtype, torch.float32), device=prompt.device)
    beams = _Beams(prompt.new_empty(count, 1, 0), scores)
    ended = _Ended(count, settings, end, scores)
    for length in range(1, settings.max_length + 1):
        following = logits.to(scores.dtype).log_softmax(dim=-1).view(count, -1, logits.shape[-1])  # [B, 1 or K, V]
        total = beams.scores[..., None] + _restrained(following, prompt, beams.texts, end, settings)
        best, origin, token = _candidates(total, settings)
        grown = torch.cat([beams.texts.gather(1, origin[..., None].expand(-1, -1, length - 1)), token[..., None]], dim=2)
        ends = token == end
        first = torch.arange(best.shape[1], device=best.device) < settings.beams
        ended.add(grown, best.masked_fill(~(ends & first), NEVER), length - 1 if settings.refill else length)
        kept = ends.int().argsort(dim=1, stable=True)[:, : settings.beams] if settings.refill else first.nonzero().T  # [B or 1, K]
        kept = kept.expand(count, -1)
        rows = origin.gather(1, kept) + torch.arange(count, device=best.device)[:, None] * beams.scores.shape[1]
        scores = best.masked_fill(ends, NEVER).gather(1, kept)
        beams = _Beams(grown.gather(1, kept[..., None].expand(-1, -1, length)), scores)
        if ended.finish(beams, best[:, 0], length) or length == settings.max_length:
            break
        reader.reorder(rows.flatten())
        logits = reader.step(beams.texts[:, :, -1].reshape(-1, 1))
    ended.add(beams.texts, beams.scores, beams.texts.shape[2])
    used = int((ended.texts[:, 0] != end).sum(dim=1).max()) + 1 if count else 0
    return Written(ended.texts[:, 0, : min(used, settings.max_length)], ended.scores[:, 0], ended.steps)


def _candidates(total: Tensor, settings: BeamSettings) -> tuple[Tensor, Tensor, Tensor]:
    """The best continuations of total scores [B, 1 or K, V], best first: scores, beams they continue, and tokens, each [B, W]."""
    vocabulary = total.shape[2]
    wanted = settings.beams * (2 if settings.refill else 1)  # of twice as many at least half do not end
    best, chosen = total.flatten(1).topk(min(wanted, total[0].numel()), dim=1)
    if (missing := wanted - best.shape[1]) > 0:  # a vocabulary smaller than the number of beams
        best, chosen = F.pad(best, (0, missing), value=NEVER), F.pad(chosen, (0, missing))
    return best, chosen // vocabulary, chosen % vocabulary


def _restrained(following: Tensor, prompt: Tensor, texts: Tensor, end: int, settings: BeamSettings) -> Tensor:
    """Log-probabilities [B, K, V] of what may follow texts [B, K, T], after penalties and without what is forbidden."""
    if settings.repetition_penalty != 1.0:
        read = torch.cat([prompt[:, None].expand(-1, texts.shape[1], -1), texts], dim=2)
        following = following.scatter(2, read, following.gather(2, read) * settings.repetition_penalty)
    if settings.no_repeat and texts.shape[2] >= settings.no_repeat:
        runs = texts.unfold(2, settings.no_repeat, 1)  # [B, K, W, n]
        tail = texts[:, :, texts.shape[2] - settings.no_repeat + 1 :, None].transpose(2, 3)  # [B, K, 1, n-1]
        again = (runs[..., :-1] == tail).all(dim=3)  # [B, K, W]
        banned = torch.zeros_like(following).scatter_add(2, runs[..., -1], again.to(following.dtype))
        following = following.masked_fill(banned > 0, NEVER)
    if texts.shape[2] < settings.min_length:
        following = following.index_fill(2, torch.tensor([end], device=following.device), NEVER)
    return following


class Sampled(NamedTuple):
    """Texts drawn at random."""

    tokens: Tensor
    """[B, K, T]; the last one of a text of full length is drawn like any other, `end` follows the end."""
    mask: Tensor
    """[B, K, T] True up to and with `end`."""


@torch.no_grad()
def sample(reader: Reader, prompt: Tensor, end: int, count: int, max_length: int, temperature: float = 1.0) -> Sampled:
    """Draw `count` texts for each prompt [B, P] from PyTorch's generator; `max_length` as in `BeamSettings`."""
    logits = reader.step(prompt)
    rows = torch.arange(len(prompt), device=prompt.device).repeat_interleave(count)
    logits, texts = logits[rows], prompt.new_empty(len(rows), 0)
    open_ = torch.ones(len(rows), dtype=torch.bool, device=prompt.device)
    masks: list[Tensor] = []
    for length in range(max_length):
        chances = (logits / temperature).to(torch.promote_types(logits.dtype, torch.float32)).softmax(dim=-1)
        drawn = torch.multinomial(chances, 1)[:, 0].masked_fill(~open_, end)
        texts = torch.cat([texts, drawn[:, None]], dim=1)
        masks.append(open_)
        open_ = open_ & (drawn != end)
        if length == max_length - 1 or not bool(open_.any()):
            break
        if length == 0:
            reader.reorder(rows)
        logits = reader.step(drawn[:, None])
    return Sampled(texts.view(len(prompt), count, -1), torch.stack(masks, dim=1).view(len(prompt), count, -1))
