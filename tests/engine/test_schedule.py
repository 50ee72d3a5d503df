"""Learning-rate factor."""

import pytest

from engine.schedule import cosine_factor, linear_factor


def test_warms_up_from_zero_and_decays_to_zero() -> None:
    assert [linear_factor(step, 100, 10) for step in (0, 5, 10, 55, 100)] == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_with_a_floor_it_follows_the_official_line() -> None:
    factors = [linear_factor(step, 1000, 100, 0.1) for step in (100, 1000)]
    assert factors == pytest.approx([1.0111, 0.1111], abs=1e-4)
    assert linear_factor(5000, 1000, 100, 0.1) == 0.1


def test_a_cosine_falls_from_one_to_the_floor() -> None:
    assert [cosine_factor(step, 110, 10, 0.2) for step in (0, 5, 10, 60, 110)] == pytest.approx([0, 0.5, 1, 0.6, 0.2])
