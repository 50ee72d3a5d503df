"""Which frames of a video stand for it (X2-VLM section 3.1)."""

import numpy as np


def sample_frame_ids(frames: int, wanted: int, rng: np.random.Generator | None = None) -> list[int]:
    """Choose frames, spread over the whole video.

    A video with more frames than wanted is cut into `wanted` segments as equal as they can be, and each gives one frame: its first in
    evaluation, any in training, where also chance decides which segments are the longer ones. From a shorter video every frame is
    taken, and then some again.

    Args:
        frames: of the video, at least 1.
        wanted: how many to choose.
        rng: None for evaluation.

    Returns:
        `wanted` numbers in [0, frames), rising.
    """
    if frames <= wanted:
        if rng is None:
            return sorted(index % frames for index in range(wanted))
        return sorted([*range(frames), *rng.integers(frames, size=wanted - frames).tolist()])
    longer = np.arange(wanted) < frames % wanted
    if rng is not None:
        rng.shuffle(longer)
    lengths = frames // wanted + longer
    starts = np.cumsum(lengths) - lengths
    return (starts if rng is None else starts + rng.integers(lengths)).tolist()
