"""Attributes of objects, ranked by score: mean average precision by the rule of OVAD (arXiv 2211.12914).

Shapes: O objects, A attributes.
"""

from collections.abc import Mapping, Sequence

import numpy as np

POSITIVE, UNKNOWN = 1, -1
GROUPS = ("head", "medium", "tail")


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under precision over recall, as a sum of steps; objects of equal score come together.

    Args:
        scores: [O].
        positive: [O] bool, at least one True.
    """
    order = np.argsort(-scores, kind="stable")
    found, scores = positive[order].cumsum(), scores[order]
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # the last object of each score
    precision, recall = found[last] / (last + 1), found[last] / found[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def attribute_map(scores: np.ndarray, labels: np.ndarray, groups: Sequence[str] = ()) -> dict[str, float]:
    """`map` in percent: the mean over attributes of the average precision over the objects for which an attribute is known.

    Args:
        scores: [O, A].
        labels: [O, A] 1: the object has it; 0: it has not; -1: unknown, left out. Attributes that no object has are left out too.
        groups: [A] the frequency of each attribute, head, medium or tail: each gives a mean of its own, `map_head` and so on.
    """
    precisions = _precisions(scores, labels)
    return _means(precisions, groups)


def chance_map(labels: np.ndarray, groups: Sequence[str] = ()) -> dict[str, float]:
    """What scores that say nothing reach: the share of positives; arguments as of `attribute_map`."""
    return _means(_precisions(np.zeros(labels.shape), labels), groups)


def _precisions(scores: np.ndarray, labels: np.ndarray) -> dict[int, float]:
    found: dict[int, float] = {}
    for place in range(labels.shape[1]):
        known = labels[:, place] != UNKNOWN
        positive = labels[known, place] == POSITIVE
        if positive.any():
            found[place] = average_precision(scores[known, place], positive)
    return found


def _means(precisions: Mapping[int, float], groups: Sequence[str]) -> dict[str, float]:
    members = {"map": list(precisions)}
    for group in GROUPS if groups else ():
        members[f"map_{group}"] = [place for place in precisions if groups[place] == group]
    return {name: 100.0 * float(np.mean([precisions[place] for place in places])) for name, places in members.items() if places}
