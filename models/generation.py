"""Writing texts token by token: beam search over anything that reads a token and tells what may come next.

Shapes: B texts, K beams, V vocabulary, T tokens written.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Reader(Protocol):
    """What writes: it has read some tokens of B * K texts, those of one text after another."""

    def step(self, tokens: Tensor) -> Tensor:
        """Read one more token of each text [B * K]; returns the logits [B * K, V] of the next."""
        ...

    def reorder(self, rows: Tensor) -> None:
        """Go on with these of its texts, [B * K] their numbers."""
        ...


class Written(NamedTuple):
    """The best text of each beam search."""

    tokens: Tensor
    """[B, T] without the start token; `end` closes a text, and what follows it is `end`, too."""
    scores: Tensor
    """[B] sum of log-probabilities, divided by the length to the power of `length_penalty`."""


class BeamSettings(NamedTuple):
    """How texts are searched for."""

    beams: int = 1
    """1 takes the likeliest token each time."""
    max_length: int = 10
    """Most tokens, `end` included."""
    length_penalty: float = 0.0
    """0 compares sums of log-probabilities, 1 means over tokens."""


@torch.no_grad()
def beam_search(reader: Reader, start: Tensor, end: int, settings: BeamSettings) -> Written:
    """Write the likeliest texts.

    A finished text keeps its beam as it is, so that it competes with those that still grow.

    Args:
        reader: has read nothing; its texts are B * K, K the number of beams.
        start: [B] the first token of each text.
        end: the token that closes a text.
        settings: see there.
    """
    count, beams = len(start), settings.beams
    device = start.device
    scores = torch.full((count, beams), float("-inf"), device=device)
    scores[:, 0] = 0.0  # all beams are alike at first: only one may branch
    texts = torch.empty(count, beams, 0, dtype=torch.int64, device=device)
    finished = torch.zeros(count, beams, dtype=torch.bool, device=device)
    lengths = torch.zeros(count, beams, device=device)
    first_row = torch.arange(count, device=device)[:, None] * beams  # [B, 1]
    tokens = start.repeat_interleave(beams)
    for _ in range(settings.max_length):
        following = reader.step(tokens).float().log_softmax(dim=-1).unflatten(0, (count, beams))  # [B, K, V]
        closed = torch.full_like(following, float("-inf"))
        closed[..., end] = 0.0
        total = scores[..., None] + torch.where(finished[..., None], closed, following)
        scores, chosen = total.flatten(1).topk(beams, dim=1)  # [B, K]
        origin, token = chosen // total.shape[2], chosen % total.shape[2]
        texts = torch.cat([texts.gather(1, origin[..., None].expand_as(texts)), token[..., None]], dim=2)
        finished, lengths = finished.gather(1, origin), lengths.gather(1, origin)
        lengths = lengths + (~finished).to(lengths.dtype)
        finished = finished | (token == end)
        if bool(finished.all()):
            break
        reader.reorder((first_row + origin).flatten())
        tokens = token.flatten()
    ranked = scores / lengths**settings.length_penalty
    best = ranked.argmax(dim=1)
    rows = torch.arange(count, device=device)
    return Written(texts[rows, best], ranked[rows, best])
