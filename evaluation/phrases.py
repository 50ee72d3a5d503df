"""Phrase grounding by ranking regions: does the best region point at what a phrase means, is one of the best near enough.

Boxes are left, top, right, bottom in any unit. Shapes: V regions, K boxes of a phrase.
"""

from collections.abc import Sequence
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation.grounding import THRESHOLD, iou

TOP = (1, 5, 10)


def region_hits(regions: ArrayLike, boxes: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which regions are right for a phrase.

    Args:
        regions: [V, 4].
        boxes: [K, 4] what the phrase means.

    Returns:
        [V] whether the region's middle lies in one of the boxes; [V] whether its IoU with one of them, or with the box around all of
        them, is at least 0.5.
    """
    found, true = np.asarray(regions, dtype=np.float64), np.asarray(boxes, dtype=np.float64)
    middle = (found[:, None, :2] + found[:, None, 2:]) / 2  # [V, 1, 2]
    pointed = ((middle >= true[:, :2]) & (middle <= true[:, 2:])).all(axis=-1).any(axis=-1)
    whole = np.concatenate([true, np.concatenate([true[:, :2].min(0), true[:, 2:].max(0)])[None]])
    near = iou(_sizes(found)[:, None], _sizes(whole)[None]).max(axis=-1) >= THRESHOLD
    return np.asarray(pointed), np.asarray(near)


def phrase_metrics(rows: Sequence[tuple[NDArray[np.bool_], NDArray[np.bool_]]]) -> dict[str, float]:
    """Numbers of phrases, each with its regions' hits (`region_hits`) best region first.

    Returns:
        In percent of phrases: `pointing` (the best region's middle is in a true box), `recall_1`, `recall_5`, `recall_10` (one of so many
        best regions has IoU >= 0.5).
    """
    if not rows:
        raise ValueError("no phrases to measure")
    metrics = {"pointing": 100.0 * float(np.mean([pointed[0] for pointed, _ in rows]))}
    return metrics | {f"recall_{k}": 100.0 * float(np.mean([near[:k].any() for _, near in rows])) for k in TOP}


def random_region(rows: Sequence[tuple[NDArray[np.bool_], NDArray[np.bool_]]]) -> dict[str, float]:
    """What regions in random order score on average, computed exactly: the keys of `phrase_metrics`."""
    metrics = {"pointing": 100.0 * float(np.mean([pointed.mean() for pointed, _ in rows]))}
    for k in TOP:
        missed = [comb(int((~near).sum()), min(k, len(near))) / comb(len(near), min(k, len(near))) for _, near in rows]
        metrics[f"recall_{k}"] = 100.0 * (1.0 - float(np.mean(missed)))
    return metrics


def _sizes(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """[.., 4] corners to x, y, w, h."""
    return np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)
