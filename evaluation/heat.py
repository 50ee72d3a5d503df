"""From a heat map to an answer: the best of given boxes, a box of its own, or a mask.

Shapes: g x g patches of the map, W x H pixels of the original image, K boxes x, y, w, h in its pixels.
"""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Heat = NDArray[np.float32]
Mask = NDArray[np.bool_]


def spread(heat: ArrayLike, size: tuple[int, int]) -> Heat:
    """A map [g, g] over the whole image as one number a pixel, [H, W], by bicubic interpolation; `size` is (width, height)."""
    return cv2.resize(np.asarray(heat, dtype=np.float32), size, interpolation=cv2.INTER_CUBIC).astype(np.float32, copy=False)


def box_scores(heat: Heat, boxes: ArrayLike, area_power: float = 0.5) -> NDArray[np.float64]:
    """The heat in each box against its size: the sum over its pixels divided by a power of its area (MAttNet's proposals in ALBEF, X-VLM).

    Args:
        heat: [H, W].
        boxes: [K, 4]; a box covers the pixels from its first corner to its last, both rounded down.
        area_power: 1 takes the mean, which small boxes win, 0 the sum, which large boxes win.

    Returns:
        [K]; -inf for a box without area.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    height, width = heat.shape
    summed = np.zeros((height + 1, width + 1))
    summed[1:, 1:] = heat.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    left, right = (np.clip(edge.astype(np.int64), 0, width) for edge in (boxes[:, 0], boxes[:, 0] + boxes[:, 2]))
    top, bottom = (np.clip(edge.astype(np.int64), 0, height) for edge in (boxes[:, 1], boxes[:, 1] + boxes[:, 3]))
    inside = summed[bottom, right] - summed[top, right] - summed[bottom, left] + summed[top, left]
    area = boxes[:, 2] * boxes[:, 3]
    usable = (boxes[:, 2] > 0) & (boxes[:, 3] > 0)
    return np.where(usable, inside / np.where(usable, area, 1.0) ** area_power, -np.inf)


def best_box(heat: Heat, boxes: ArrayLike, area_power: float = 0.5) -> NDArray[np.float64]:
    """The box [4] of the highest score, the first of equal ones, whatever its sign; see `box_scores`."""
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4)[int(np.argmax(box_scores(heat, boxes, area_power)))]


def hot_pixels(heat: Heat, share: float) -> Mask:
    """[H, W] the pixels with at least this share of the largest heat; none where there is no heat."""
    peak = float(heat.max())
    return heat >= share * peak if peak > 0 else np.zeros(heat.shape, dtype=np.bool_)


def hot_box(heat: Heat, share: float) -> NDArray[np.float64]:
    """The box [4] around the connected hot pixels that hold the most heat; the whole image where there is no heat."""
    mask = hot_pixels(heat, share)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count < 2:  # the ground alone
        return np.array([0, 0, heat.shape[1], heat.shape[0]], dtype=np.float64)
    held = np.bincount(labels.ravel(), weights=heat.ravel(), minlength=count)
    return stats[1 + int(np.argmax(held[1:])), :4].astype(np.float64)  # x, y, w, h


def box_mask(box: ArrayLike, size: tuple[int, int]) -> Mask:
    """[H, W] the pixels whose middle lies in a box; `size` is (width, height)."""
    x, y, w, h = np.asarray(box, dtype=np.float64)
    columns, rows = np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5
    return ((rows >= y) & (rows < y + h))[:, None] & ((columns >= x) & (columns < x + w))


def mask_iou(first: Mask, second: Mask) -> float:
    """Intersection over union of two masks [H, W]; 0 where both are empty."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 0.0
