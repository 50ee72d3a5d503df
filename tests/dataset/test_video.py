"""Which frames stand for a video."""

import numpy as np
import pytest

from dataset.video import sample_frame_ids


@pytest.mark.parametrize(
    ("frames", "wanted", "expected"),
    [
        (10, 3, [0, 4, 7]),  # segments of 4, 3 and 3
        (9, 3, [0, 3, 6]),
        (3, 3, [0, 1, 2]),
        (2, 5, [0, 0, 0, 1, 1]),
        (1, 4, [0, 0, 0, 0]),
    ],
)
def test_evaluation_takes_the_first_frame_of_each_segment(frames: int, wanted: int, expected: list[int]) -> None:
    assert sample_frame_ids(frames, wanted) == expected


@pytest.mark.parametrize(("frames", "wanted"), [(10, 3), (100, 7), (8, 8), (3, 8)])
def test_training_draws_from_the_whole_video(frames: int, wanted: int) -> None:
    rng = np.random.default_rng(0)
    draws = [sample_frame_ids(frames, wanted, rng) for _ in range(400)]
    assert all(len(chosen) == wanted and chosen == sorted(chosen) for chosen in draws)
    assert {index for chosen in draws for index in chosen} == set(range(frames))
    if frames <= wanted:
        assert all(set(chosen) == set(range(frames)) for chosen in draws)
    else:
        assert all(len(set(chosen)) == wanted for chosen in draws)


def test_the_same_generator_draws_the_same_frames() -> None:
    assert sample_frame_ids(50, 5, np.random.default_rng(3)) == sample_frame_ids(50, 5, np.random.default_rng(3))
