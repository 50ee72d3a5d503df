"""Beam search."""

from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

from models.generation import BeamSettings, beam_search, sample

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


class Fixed:
    """The same scores whatever was read."""

    def __init__(self, chances: list[float]) -> None:
        self.logits = torch.tensor(chances).log()
        self.rows = 1

    def step(self, tokens: Tensor) -> Tensor:
        self.rows = len(tokens)
        return self.logits.expand(len(tokens), -1)

    def reorder(self, rows: Tensor) -> None:
        self.rows = len(rows)


def written_with(chances: list[float], **changes: float) -> tuple[int, ...]:
    settings = BeamSettings(beams=2, max_length=6)._replace(**changes)  # pyright: ignore[reportArgumentType]
    return closed(beam_search(Fixed(chances), START, END, settings).tokens[0])


@pytest.mark.parametrize("refill", [False, True])
def test_a_text_has_at_least_the_least_length(refill: bool) -> None:
    ending = [0.1, 0.1, 0.1, 0.7]
    assert written_with(ending, refill=refill) == (END,)
    assert len(written_with(ending, refill=refill, min_length=3)) == 4


def test_no_run_of_tokens_is_written_twice() -> None:
    chances = [0.6, 0.3, 0.05, 0.05]
    assert written_with(chances, min_length=6)[:4] == (0, 0, 0, 0)
    text = written_with(chances, no_repeat=2, min_length=6)
    pairs = list(pairwise(text))
    assert len(set(pairs)) == len(pairs)
    triples = written_with(chances, no_repeat=3, min_length=6)
    assert (0, 0, 0) in list(zip(triples, triples[1:], triples[2:], strict=False))
    assert triples[:4] != (0, 0, 0, 0)


def test_a_length_penalty_makes_texts_longer() -> None:
    chances = [0.75, 0.02, 0.03, 0.2]
    lengths = [len(written_with(chances, beams=4, length_penalty=penalty)) for penalty in (0.0, 3.0)]
    assert lengths[0] < lengths[1]
    short = written_with(chances, beams=4, length_penalty=1.0, length_offset=50)
    assert len(short) <= len(written_with(chances, beams=4, length_penalty=1.0))


def test_what_is_there_already_costs_more_with_a_penalty_on_repetition() -> None:
    chances = [0.5, 0.4, 0.05, 0.05]
    assert len(set(written_with(chances, min_length=6)[:4])) == 1
    assert len(set(written_with(chances, min_length=6, repetition_penalty=2.0)[:4])) > 1


def test_enough_refilled_beams_find_the_best_of_all_texts() -> None:
    beams = VOCABULARY**LENGTH
    written = beam_search(Table(3), START.expand(3, 1), END, BeamSettings(beams, LENGTH, refill=True))
    table = Table(3)
    every = {closed(torch.tensor(tokens)) for tokens in product(range(VOCABULARY), repeat=LENGTH)}
    for text in range(3):
        assert closed(written.tokens[text]) == max(every, key=lambda tokens: log_probability(table, text, tokens))


def test_samples_have_the_chances_of_the_model() -> None:
    torch.manual_seed(0)
    drawn = sample(Fixed([0.5, 0.25, 0.05, 0.2]), START, END, count=4000, max_length=3)
    first = drawn.tokens[0, :, 0]
    assert [float((first == token).float().mean()) for token in range(4)] == pytest.approx([0.5, 0.25, 0.05, 0.2], abs=0.03)
    ended = drawn.tokens[0, :, 0] == END
    assert not drawn.mask[0, ended, 1:].any()
    assert drawn.mask[0, ended, 0].all()
    assert (drawn.tokens[0, ended] == END).all()
    assert drawn.mask[0, ~ended, 1].all()
