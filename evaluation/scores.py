"""Scores of predicted labels or numbers against the true ones, all times 100.

Shapes: R records.
"""

from collections.abc import Callable, Sequence

import numpy as np

from common.scores import Score
from evaluation.classification import accuracy

Numbers = Sequence[int | float]


def mean_per_class(predicted: Numbers, true: Numbers) -> float:
    """Mean over the classes that occur of the share of their records that is right."""
    found, wanted = np.asarray(predicted), np.asarray(true)
    return 100.0 * float(np.mean([(found[wanted == label] == label).mean() for label in np.unique(wanted)]))


def f1(predicted: Numbers, true: Numbers) -> float:
    """F1 of class 1: the harmonic mean of precision and recall; 0 where nothing of that class is found."""
    found, wanted = np.asarray(predicted) == 1, np.asarray(true) == 1
    both = int((found & wanted).sum())
    return 100.0 * 2 * both / (int(found.sum()) + int(wanted.sum())) if both else 0.0


def matthews(predicted: Numbers, true: Numbers) -> float:
    """Matthews' correlation of two classes; 0 where one side has a single class."""
    return pearson([float(label == 1) for label in predicted], [float(label == 1) for label in true])


def pearson(predicted: Numbers, true: Numbers) -> float:
    """Pearson's correlation; 0 where one side does not vary."""
    found, wanted = (np.asarray(values, dtype=np.float64) for values in (predicted, true))
    if not np.ptp(found) or not np.ptp(wanted):  # rounding would make something of nothing
        return 0.0
    found, wanted = found - found.mean(), wanted - wanted.mean()
    return 100.0 * float(found @ wanted) / float(np.linalg.norm(found) * np.linalg.norm(wanted))


def spearman(predicted: Numbers, true: Numbers) -> float:
    """Spearman's correlation: Pearson's of the ranks, equal values sharing the mean of theirs."""
    return pearson(*(_ranks(np.asarray(values, dtype=np.float64)).tolist() for values in (predicted, true)))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return (last - (counts - 1) / 2)[place]


SCORES: dict[Score, Callable[[Numbers, Numbers], float]] = {
    "acc": lambda predicted, true: accuracy([int(label) for label in predicted], [int(label) for label in true]),
    "mean_per_class": mean_per_class,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}


def score(predicted: Numbers, true: Numbers, names: Sequence[Score]) -> dict[str, float]:
    """Scores by name.

    Raises:
        ValueError: no records, or lengths that differ.
    """
    if len(predicted) != len(true) or not len(true):
        raise ValueError(f"{len(predicted)} predictions for {len(true)} labels: expected as many, and at least one")
    return {name: SCORES[name](predicted, true) for name in names}
