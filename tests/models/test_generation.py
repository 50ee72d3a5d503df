"""Beam search."""

from itertools import product

import pytest
import torch
from torch import Tensor

from models.generation import BeamSettings, beam_search

VOCABULARY, END, LENGTH = 4, 3, 3
START = torch.zeros(1, 1, dtype=torch.int64)


class Table:
    """Next-token scores that depend on all tokens read so far, different for each text."""

    def __init__(self, texts: int) -> None:
        self.scores = torch.randn(texts, *[VOCABULARY + 1] * (LENGTH + 1), VOCABULARY, generator=torch.Generator().manual_seed(5)) * 2
        self.read = torch.empty(texts, 0, dtype=torch.int64)
        self.texts = texts

    def step(self, tokens: Tensor) -> Tensor:
        self.read = torch.cat([self.read, tokens], dim=1)
        beams = len(self.read) // self.texts
        return torch.stack([self.of(row // beams, tokens.tolist()) for row, tokens in enumerate(self.read)])

    def of(self, text: int, tokens: list[int]) -> Tensor:
        padded = tokens + [VOCABULARY] * (LENGTH + 1 - len(tokens))
        return self.scores[(text, *padded)]

    def reorder(self, rows: Tensor) -> None:
        self.read = self.read[rows]


def log_probability(table: Table, text: int, tokens: tuple[int, ...]) -> float:
    read, total = [0], 0.0
    for token in tokens:
        total += float(table.of(text, read).log_softmax(dim=0)[token])
        read.append(token)
    return total


def closed(tokens: Tensor) -> tuple[int, ...]:
    """A text up to its end."""
    ids = tokens.tolist()
    return tuple(ids[: ids.index(END) + 1] if END in ids else ids)


def test_one_beam_takes_the_likeliest_token_each_time() -> None:
    written = beam_search(Table(6), START.expand(6, 1), END, BeamSettings(1, LENGTH))
    table = Table(6)
    for text in range(6):
        read = [0]
        while len(read) <= LENGTH and read[-1] != END:
            read.append(int(table.of(text, read).argmax()))
        assert closed(written.tokens[text]) == tuple(read[1:])


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_enough_beams_find_the_best_of_all_texts(penalty: float) -> None:
    beams = VOCABULARY**LENGTH
    written = beam_search(Table(3), START.expand(3, 1), END, BeamSettings(beams, LENGTH, penalty))
    table = Table(3)
    every = {closed(torch.tensor(tokens)) for tokens in product(range(VOCABULARY), repeat=LENGTH)}
    for text in range(3):
        scores = {tokens: log_probability(table, text, tokens) / len(tokens) ** penalty for tokens in every}
        best = max(scores, key=lambda tokens: scores[tokens])
        assert closed(written.tokens[text]) == best
        assert float(written.scores[text]) == pytest.approx(scores[best], abs=1e-5)


def test_a_finished_text_stays_as_it_is() -> None:
    written = beam_search(Table(6), START.expand(6, 1), END, BeamSettings(2, LENGTH))
    for tokens in written.tokens:
        text = closed(tokens)
        assert set(tokens[len(text) :].tolist()) <= {END}
