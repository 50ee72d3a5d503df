"""Learning-rate factor as a pure function of the step."""

import math
from collections.abc import Callable


def linear_factor(step: int, total: int, warmup: int, floor: float = 0.0) -> float:
    """Linear warm-up from 0, then linear decay.

    Args:
        step: optimizer steps already taken; the first step has factor 0 when there is a warm-up.
        total: steps of the whole run.
        warmup: steps of the warm-up.
        floor: smallest factor after the warm-up (min_lr / lr). The line is the official one, which reaches the floor at `total` but
            starts above 1 right after the warm-up when the floor is not 0 (X2-VLM).

    Returns:
        Factor of the base learning rate.
    """
    if step < warmup:
        return step / max(warmup, 1)
    return max(floor, (total - (1 - floor) * step) / max(total - warmup, 1))


def cosine_factor(step: int, total: int, warmup: int, floor: float = 0.0) -> float:
    """Linear warm-up from 0, then half a cosine from 1 down to the floor; arguments as of `linear_factor`."""
    if step < warmup:
        return step / max(warmup, 1)
    done = min((step - warmup) / max(total - warmup, 1), 1.0)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))


FACTORS: dict[str, Callable[[int, int, int, float], float]] = {"linear": linear_factor, "cosine": cosine_factor}
"""By `schedule.kind`."""
