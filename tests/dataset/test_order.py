"""The order of records: every record once an epoch, from seed, epoch and position alone."""

import itertools

import numpy as np
import pytest

from dataset.order import EpochOrder, record_index, sample_rng

SHAPES = [(block, window) for block in (1, 3, 8) for window in (1, 2, 5)]


@pytest.mark.parametrize(("block", "window"), SHAPES)
def test_every_record_comes_exactly_once_an_epoch_for_any_number_of_records(block: int, window: int):
    for n, seed, epoch in itertools.product((1, 2, 3, 7, 8, 9, 24, 40, 41, 79, 81), (0, 5), (0, 1, 2)):
        order = EpochOrder(n, seed, block, window)
        assert sorted(order.index(position, epoch) for position in range(n)) == list(range(n))


def test_a_set_smaller_than_a_block_is_shuffled_too():
    order = EpochOrder(100, seed=0)
    records = [order.index(position, 0) for position in range(100)]
    assert sorted(records) == list(range(100))
    assert records != list(range(100))


def test_the_record_at_a_position_does_not_depend_on_what_was_asked_before():
    n, block, window = 200, 8, 3
    forwards = [EpochOrder(n, 1, block, window).index(position, 4) for position in range(n)]  # a fresh object for each
    walked = EpochOrder(n, 1, block, window)
    for epoch, position in itertools.product((4, 0), reversed(range(n))):
        walked.index(position, epoch)
    assert [walked.index(position, 4) for position in range(n)] == forwards
    assert [record_index(position, n, 1, 4, block, window) for position in range(n)] == forwards


def test_epochs_and_seeds_have_different_orders():
    orders = {tuple(record_index(p, 64, seed, epoch, 8, 2) for p in range(64)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_records_stay_within_a_window_of_blocks():
    n, block, window = 400, 10, 4
    order = EpochOrder(n, 7, block, window)
    for first in range(0, n, block * window):
        blocks = {order.index(position, 0) // block for position in range(first, first + block * window)}
        assert len(blocks) == window


def test_the_order_is_pinned():
    """A release that changes these numbers breaks the resume of every run under way."""
    assert [record_index(position, 10, seed=3, epoch=2, block=4, window=2) for position in range(10)] == [4, 7, 3, 2, 0, 6, 5, 1, 8, 9]
    assert [int(word) for word in sample_rng(3, "images", 5).bit_generator.random_raw(2)] == [8717927306428932759, 8938757657295089022]


def test_a_position_outside_the_epoch_is_refused():
    with pytest.raises(IndexError):
        record_index(10, 10, 0, 0)
    with pytest.raises(ValueError, match="at least one record"):
        EpochOrder(0, 0)


def test_random_numbers_of_a_sample_depend_on_seed_stream_and_position_only():
    def draw(seed: int, stream: str, index: int) -> tuple[float, ...]:
        return tuple(sample_rng(seed, stream, index).random(4))

    places = list(itertools.product((0, 1), ("images", "regions"), (0, 1, 10**12)))
    draws = [draw(*place) for place in places]
    assert draws == [draw(*place) for place in reversed(places)][::-1]
    assert len(set(draws)) == len(places)


def test_memory_of_a_large_order_is_its_blocks_and_a_few_windows():
    n = 20_000_000
    order = EpochOrder(n, 0)
    for position in range(0, n, n // 50):
        order.index(position, 0)
    kept = list(order._windows.values())
    assert sum(records.nbytes for _, records in kept) + order._blocks[1].nbytes < 1 << 20  # pyright: ignore[reportOptionalSubscript]


def test_orders_of_neighbouring_epochs_are_not_shifts_of_each_other():
    first = np.array([record_index(p, 512, 0, 0, 16, 4) for p in range(512)])
    second = np.array([record_index(p, 512, 0, 1, 16, 4) for p in range(512)])
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.2
