"""Recall of two-way image-text retrieval, and what chance would reach.

Shapes: I images, T texts, Q queries of one direction, C what they search, k candidates of a query. Each text belongs to one image; an
image may have many texts or none.

Ranks. A text finds its image at rank r when r wrong images stand before it. An image finds its *best* own text: r counts the wrong
texts before the best-placed own one, so an image's own texts never push one another down.

Ties count against us: a wrong candidate with the same score stands before the right one, and so does one whose score is NaN. A model
that gives every pair the same score therefore reaches 0, and no number depends on the order of the files. Two-stage retrieval scores
only some candidates and gives all others one low constant: a right candidate that was not re-ranked stands behind all wrong ones that
were not either. Without ties the numbers are those of a descending sort of each row.
"""

from collections.abc import Sequence
from math import comb

import numpy as np
from numpy.typing import NDArray

CUTOFFS = (1, 5, 10)


def recall_metrics(score_i2t: np.ndarray, score_t2i: np.ndarray, text_image: Sequence[int]) -> dict[str, float]:
    """Recall at 1, 5 and 10 in both directions.

    Args:
        score_i2t: [I, T] score of every text for each image query; higher is better. Only the order within a row matters.
        score_t2i: [T, I] score of every image for each text query.
        text_image: [T] index of the image that each text belongs to.

    Returns:
        Percentages: `tr_r1`, `tr_r5`, `tr_r10` (texts retrieved for images), `ir_r1`, `ir_r5`, `ir_r10` (images retrieved for texts),
        `tr_mean` and `ir_mean` over the three cut-offs, and `r_mean`, the mean of these two. An image without a text is a distractor
        for the texts and no query itself.

    Raises:
        ValueError: shapes that do not fit together, or an image index out of range.
    """
    owner = _owners(text_image, score_i2t.shape[0])
    if score_i2t.ndim != 2 or score_t2i.shape != score_i2t.shape[::-1] or score_i2t.shape[1] != len(owner):
        raise ValueError(f"scores {score_i2t.shape} and {score_t2i.shape} with {len(owner)} texts: expected [I, T], [T, I] and T texts")
    images = np.arange(len(score_i2t))
    for_images = ranks(score_i2t, owner == images[:, None])
    return recalls(for_images, ranks(score_t2i, owner[:, None] == images), text_image)


def ranks(scores: np.ndarray, right: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rank of some queries' best right candidate, when all candidates have scores.

    Args:
        scores: [Q, C]
        right: [Q, C] which candidates are right ones.

    Returns:
        [Q] number of wrong candidates at or above the best right one; of all of them where no right one has a score.
    """
    best = np.fmax.reduce(np.where(right, scores, -np.inf), axis=1, keepdims=True)  # fmax: a right one with NaN never becomes the best
    return np.count_nonzero(~(scores < best) & ~right, axis=1)


def candidate_ranks(scores: np.ndarray, right: NDArray[np.bool_], wrong: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rank of some queries' best right candidate, when only some candidates have scores and all others stand behind these.

    Args:
        scores: [Q, k] of those that were re-ranked.
        right: [Q, k] which of them are right ones.
        wrong: [Q] how many wrong ones there are among all candidates.

    Returns:
        [Q] as `ranks`; all wrong ones stand before a right one that was not re-ranked.
    """
    found = (right & ~np.isnan(scores)).any(axis=1)
    return np.where(found, ranks(scores, right), wrong)


def recalls(for_images: NDArray[np.int64], for_texts: NDArray[np.int64], text_image: Sequence[int]) -> dict[str, float]:
    """The numbers of `recall_metrics` from ranks [I] of image queries and [T] of text queries; images without a text do not count."""
    asking = np.bincount(_owners(text_image, len(for_images)), minlength=len(for_images)) > 0
    return _with_means(_recalls("tr", for_images[asking]) | _recalls("ir", for_texts))


def chance_recall(images: int, text_image: Sequence[int]) -> dict[str, float]:
    """Expected recall of a uniformly random order, in closed form.

    Args:
        images: I, the number of images.
        text_image: [T] index of the image that each text belongs to.

    Returns:
        The same keys and units as `recall_metrics`.
    """
    owner = _owners(text_image, images)
    counts = np.bincount(owner)
    found = {}
    for k in CUTOFFS:
        found[f"tr_r{k}"] = 100.0 * float(np.mean([chance_hit(len(owner), int(count), k) for count in counts[counts > 0]]))
        found[f"ir_r{k}"] = 100.0 * chance_hit(images, 1, k)
    return _with_means(found)


def chance_hit(candidates: int, correct: int, k: int) -> float:
    """Probability, 0 to 1, that the first k of a random order of the candidates hold at least one of the correct ones."""
    return 1.0 - comb(candidates - correct, k) / comb(candidates, k) if k < candidates else 1.0


def _owners(text_image: Sequence[int], images: int) -> NDArray[np.int64]:
    """[T] checked image index of each text."""
    owner = np.asarray(text_image, dtype=np.int64)
    if owner.ndim != 1 or not len(owner):
        raise ValueError("retrieval needs at least one text")
    if owner.min() < 0 or owner.max() >= images:
        raise ValueError(f"text_image names image {owner.min() if owner.min() < 0 else owner.max()} of {images}")
    return owner


def _recalls(direction: str, found: NDArray[np.int64]) -> dict[str, float]:
    return {f"{direction}_r{k}": 100.0 * float(np.mean(found < k)) for k in CUTOFFS}


def _with_means(found: dict[str, float]) -> dict[str, float]:
    means = {f"{way}_mean": float(np.mean([found[f"{way}_r{k}"] for k in CUTOFFS])) for way in ("tr", "ir")}
    return found | means | {"r_mean": (means["tr_mean"] + means["ir_mean"]) / 2}
