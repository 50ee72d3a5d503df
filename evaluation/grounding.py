"""Phrase grounding: does the predicted box overlap the true one enough, and what would a guess reach.

Boxes are x, y, w, h in pixels of the original image, x and y the upper left corner. Shapes: n boxes, K candidates.
A prediction is right where its IoU with the true box is at least `THRESHOLD`.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

THRESHOLD = 0.5
CENTRE_BOX = (0.25, 0.25, 0.5, 0.5)
"""The middle of the image, half its width and half its height, as shares of the image."""

Boxes = NDArray[np.float64]


def iou(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of boxes row by row.

    Args:
        first: [..., 4] x, y, w, h.
        second: [..., 4], broadcast against `first`.

    Returns:
        [...] between 0 and 1; 0 where a box is empty, has a negative side or is not finite.
    """
    start, end, areas = _overlap(first, second)
    return _ratio(np.clip(end - start, 0.0, None), areas)


def iou_inclusive(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """IoU as the official RefCOCO tools compute it, which read a box as whole pixels, the last one at x + w - 1.

    The overlap runs from its first to its last pixel, both counted, and counts only where the last lies beyond the first in both
    directions; the areas are w * h. The added and the subtracted pixel cancel: the result differs from `iou` only where the boxes
    share a strip of at most one pixel, which is 0 here. Boxes in other units than pixels (0 to 1) make no sense to it.

    Args and result as in `iou`.
    """
    start, end, areas = _overlap(first, second)
    last = end - 1.0
    return _ratio(np.where((start < last).all(axis=-1, keepdims=True), last - start + 1.0, 0.0), areas)


def grounding_metrics(predicted: ArrayLike, true: ArrayLike) -> dict[str, float]:
    """Accuracy and overlap of predicted boxes.

    Args:
        predicted: [n, 4] x, y, w, h in pixels.
        true: [n, 4] likewise.

    Returns:
        `accuracy`: percent of boxes with IoU >= 0.5. `accuracy_inclusive`: the same under the official inclusive-pixel rule, the number
        to put beside published ones. `mean_iou`: mean IoU, 0 to 1.

    Raises:
        ValueError: no boxes, or shapes that differ.
    """
    predicted, true = _boxes(predicted), _boxes(true)
    if predicted.shape != true.shape or not len(true):
        raise ValueError(f"predicted boxes {predicted.shape} and true boxes {true.shape}: expected the same [n, 4] with n > 0")
    return _metrics(iou(predicted, true), iou_inclusive(predicted, true))


def mean_relative_box(boxes: ArrayLike, sizes: ArrayLike) -> Boxes:
    """The average box of a training set as shares of its image.

    Args:
        boxes: [n, 4] x, y, w, h in pixels.
        sizes: [n, 2] width and height of each image in pixels.

    Returns:
        [4] mean x, y, w, h, each divided by its image's width or height.
    """
    return (_boxes(boxes) / _doubled(sizes)).mean(axis=0)


def place_box(relative: ArrayLike, sizes: ArrayLike) -> Boxes:
    """The same relative box in every image: [4] shares and [n, 2] sizes -> [n, 4] x, y, w, h in pixels."""
    return np.asarray(relative, dtype=np.float64) * _doubled(sizes)


def candidates_of_images(images: Sequence[Hashable], boxes: ArrayLike) -> list[Boxes]:
    """The candidates of each expression: all distinct boxes that the data set names in the same image.

    Args:
        images: [n] which image each box lies in (a path or an id).
        boxes: [n, 4] x, y, w, h in pixels.

    Returns:
        n arrays [K, 4]; expressions of one image share theirs.
    """
    boxes = _boxes(boxes)
    rows: dict[Hashable, list[int]] = {}
    for row, image in enumerate(images):
        rows.setdefault(image, []).append(row)
    distinct = {image: np.unique(boxes[of_image], axis=0) for image, of_image in rows.items()}
    return [distinct[image] for image in images]


def largest_candidate(candidates: Sequence[ArrayLike]) -> Boxes:
    """[n, 4] the candidate of the largest area for each of n expressions; the first one where areas are equal."""
    return np.stack([boxes[np.argmax(boxes[:, 2] * boxes[:, 3])] for boxes in map(_boxes, candidates)])


def random_candidate_metrics(candidates: Sequence[ArrayLike], true: ArrayLike) -> dict[str, float]:
    """What picking one candidate uniformly at random scores on average; computed exactly, nothing is drawn.

    Args:
        candidates: n arrays [K, 4] of x, y, w, h in pixels, each with K >= 1.
        true: [n, 4].

    Returns:
        The keys of `grounding_metrics`.
    """
    each = [grounding_metrics(boxes, np.broadcast_to(box, np.shape(boxes))) for boxes, box in zip(candidates, _boxes(true), strict=True)]
    return {name: float(np.mean([metrics[name] for metrics in each])) for name in each[0]}


def grounding_baselines(
    true: ArrayLike,
    sizes: ArrayLike,
    train_boxes: ArrayLike | None = None,
    train_sizes: ArrayLike | None = None,
    candidates: Sequence[ArrayLike] | None = None,
) -> dict[str, dict[str, float]]:
    """Guesses that do not read the text, to stand beside a model's numbers.

    Args:
        true: [n, 4] boxes of the evaluated set in pixels.
        sizes: [n, 2] width and height of their images.
        train_boxes: [m, 4] boxes of the training set; without them there is no "mean box".
        train_sizes: [m, 2] width and height of the training images.
        candidates: n arrays [K, 4] of boxes to choose from; without them there is no "largest object" and no "random object".

    Returns:
        Name of the guess -> its `grounding_metrics`: "centre box", "mean box", "largest object", "random object".
    """
    baselines = {"centre box": grounding_metrics(place_box(CENTRE_BOX, sizes), true)}
    if train_boxes is not None and train_sizes is not None:
        baselines["mean box"] = grounding_metrics(place_box(mean_relative_box(train_boxes, train_sizes), sizes), true)
    if candidates is not None:
        baselines["largest object"] = grounding_metrics(largest_candidate(candidates), true)
        baselines["random object"] = random_candidate_metrics(candidates, true)
    return baselines


def _boxes(values: ArrayLike) -> Boxes:
    boxes = np.asarray(values, dtype=np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes of shape {boxes.shape}: expected [n, 4] as x, y, w, h")
    return boxes


def _doubled(sizes: ArrayLike) -> Boxes:
    """[n, 2] width, height -> [n, 4] width, height, width, height."""
    return np.tile(np.asarray(sizes, dtype=np.float64), 2)


def _overlap(first: ArrayLike, second: ArrayLike) -> tuple[Boxes, Boxes, NDArray[np.float64]]:
    """Start [..., 2] and end [..., 2] of the overlap (end < start where there is none) and the sum of both areas [...].

    Boxes with a side that is not positive or not finite get the area NaN, which `_ratio` turns into an IoU of 0.
    """
    a, b = np.broadcast_arrays(np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64))
    both = np.concatenate([a, b], axis=-1)
    usable = np.isfinite(both).all(axis=-1) & (both[..., [2, 3, 6, 7]] > 0).all(axis=-1)
    a, b = (np.where(np.expand_dims(usable, -1), boxes, 0.0) for boxes in (a, b))  # no warnings from inf - inf
    start = np.maximum(a[..., :2], b[..., :2])
    end = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    return start, end, np.where(usable, a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3], np.nan)


def _ratio(sides: NDArray[np.float64], areas: NDArray[np.float64]) -> NDArray[np.float64]:
    """Overlap sides [..., 2] and sum of areas [...] -> IoU [...]."""
    shared = sides[..., 0] * sides[..., 1]
    return np.nan_to_num(shared / (areas - shared), nan=0.0)


def _metrics(plain: NDArray[np.float64], inclusive: NDArray[np.float64]) -> dict[str, float]:
    return {
        "accuracy": 100.0 * float(np.mean(plain >= THRESHOLD)),
        "accuracy_inclusive": 100.0 * float(np.mean(inclusive >= THRESHOLD)),
        "mean_iou": float(np.mean(plain)),
    }
