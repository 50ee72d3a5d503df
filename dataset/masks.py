"""Masks of objects as COCO writes them under `segmentation`: polygons, or runs of equal pixels column by column (RLE).

A mask is bool [H, W].
"""

from typing import Any

import numpy as np
from matplotlib.path import Path
from numpy.typing import NDArray

from common.errors import BadRecord

Mask = NDArray[np.bool_]


def decode_mask(segmentation: Any, width: int, height: int) -> Mask:
    """The mask that an annotation describes in an image of this size.

    Args:
        segmentation: a list of polygons [x, y, x, y, ...] in pixels; or {"size": [H, W], "counts": run lengths, or their compressed text}.
        width, height: of the image in pixels.

    Raises:
        BadRecord: it is neither, or does not fit the image.
    """
    if isinstance(segmentation, list) and segmentation:
        return _polygons(segmentation, width, height)
    if isinstance(segmentation, dict) and isinstance(segmentation.get("counts"), list | str | bytes):
        if list(segmentation.get("size", ())) != [height, width]:
            raise BadRecord(f"the mask is of {segmentation.get('size')} rows and columns, the image of {[height, width]}")
        counts = segmentation["counts"]
        return _runs(_counts_of_text(counts) if isinstance(counts, str | bytes) else counts, width, height)
    raise BadRecord("the segmentation is neither a list of polygons nor run lengths")


def encode_mask(mask: Mask) -> dict[str, Any]:
    """A mask as {"size": [H, W], "counts": run lengths}, which `decode_mask` reads; the first run is of pixels outside."""
    flat = mask.ravel(order="F").astype(np.int8)
    edges = np.flatnonzero(np.diff(flat, prepend=0))
    return {"size": list(mask.shape), "counts": np.diff(edges, prepend=0, append=flat.size).tolist()}


def _polygons(polygons: list[Any], width: int, height: int) -> Mask:
    """The pixels whose middle lies in a polygon."""
    mask = np.zeros((height, width), dtype=np.bool_)
    for polygon in polygons:
        corners = np.asarray(polygon, dtype=np.float64)
        if corners.ndim != 1 or corners.size < 6 or corners.size % 2 or not np.isfinite(corners).all():
            raise BadRecord("a polygon of the mask has no three corners")
        corners = corners.reshape(-1, 2)
        x0, y0 = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, (width, height))
        x1, y1 = np.clip(np.ceil(corners.max(axis=0)).astype(int), 0, (width, height))
        middles = np.stack(np.meshgrid(np.arange(x0, x1) + 0.5, np.arange(y0, y1) + 0.5), axis=-1)
        mask[y0:y1, x0:x1] |= Path(corners).contains_points(middles.reshape(-1, 2)).reshape(middles.shape[:2])
    return mask


def _runs(counts: list[int], width: int, height: int) -> Mask:
    lengths = np.asarray(counts, dtype=np.int64)
    if lengths.ndim != 1 or (lengths < 0).any() or lengths.sum() != width * height:
        raise BadRecord(f"the runs of the mask are not the {width * height} pixels of the image")
    inside = np.arange(len(lengths)) % 2 == 1
    return np.repeat(inside, lengths).reshape((height, width), order="F")


def _counts_of_text(text: str | bytes) -> list[int]:
    """Run lengths of COCO's compressed text: digits of 5 bits, lowest first, from character 48; bit 6 says that more follow, the last
    digit's highest bit is the sign; from the fourth length on, the difference from the length two before."""
    counts: list[int] = []
    value = shift = 0
    for code in text.encode() if isinstance(text, str) else text:
        digit = code - 48
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise BadRecord("the compressed runs of the mask are cut short")
    return counts
