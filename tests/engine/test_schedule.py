"""Learning-rate factor."""

import pytest

from engine.schedule import linear_factor


def test_warms_up_from_zero_and_decays_to_zero() -> None:
    assert [linear_factor(step, 100, 10) for step in (0, 5, 10, 55, 100)] == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_with_a_floor_it_follows_the_official_line() -> None:
    factors = [linear_factor(step, 1000, 100, 0.1) for step in (100, 1000)]
    assert factors == pytest.approx([1.0111, 0.1111], abs=1e-4)
    assert linear_factor(5000, 1000, 100, 0.1) == 0.1
