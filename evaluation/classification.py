"""Labels: how many are right, and what the most frequent one would reach."""

import json
from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from common.files import replace_file


def accuracy(predicted: Sequence[int], true: Sequence[int]) -> float:
    """Percent of records whose predicted label is the true one.

    Raises:
        ValueError: no records, or lengths that differ.
    """
    if len(predicted) != len(true) or not true:
        raise ValueError(f"{len(predicted)} predictions for {len(true)} labels: expected as many, and at least one")
    return 100.0 * sum(a == b for a, b in zip(predicted, true, strict=True)) / len(true)


def consistency(predicted: Sequence[int | float], true: Sequence[int | float], groups: Sequence[Hashable]) -> float:
    """Percent of groups all of whose records are right: NLVR2's second number, a group being one sentence with its image pairs."""
    right: dict[Hashable, bool] = {}
    for a, b, group in zip(predicted, true, groups, strict=True):
        right[group] = right.get(group, True) and a == b
    return 100.0 * sum(right.values()) / len(right)


def majority(train: Sequence[int]) -> int:
    """The most frequent label; the lowest where several are."""
    counts = Counter(train)
    return min(counts, key=lambda label: (-counts[label], label))


def write_statements(file: Path, keys: Sequence[str], predicted: Sequence[int]) -> None:
    """Predictions as NLVR2's evaluation script reads them: a CSV line "identifier,True" or "identifier,False" each."""
    rows = "".join(f"{_cell(key)},{bool(label)}\n" for key, label in zip(keys, predicted, strict=True))
    replace_file(file, rows)


def write_labels(
    file: Path, keys: Sequence[str], predicted: Sequence[int], chances: Sequence[Sequence[float]], names: Sequence[str]
) -> None:
    """Predictions as a JSON list of {"id", "label", "probabilities": {label: p}}."""
    rows: list[dict[str, Any]] = [
        {"id": key, "label": names[label], "probabilities": {name: round(p, 6) for name, p in zip(names, row, strict=True)}}
        for key, label, row in zip(keys, predicted, chances, strict=True)
    ]
    replace_file(file, json.dumps(rows, indent=0) + "\n")


def write_glue(file: Path, keys: Sequence[str], predicted: Sequence[int | float], names: Sequence[str]) -> None:
    """Predictions as GLUE's server takes them: a header, then "index<tab>prediction"; numbers, without names, are kept within 0 and 5."""
    values = [names[int(label)] if names else f"{min(max(float(label), 0.0), 5.0):.3f}" for label in predicted]
    rows = "".join(f"{key}\t{value}\n" for key, value in zip(keys, values, strict=True))
    replace_file(file, f"index\tprediction\n{rows}")


def _cell(text: str) -> str:
    """A CSV cell."""
    return f'"{text.replace(chr(34), chr(34) * 2)}"' if set(text) & set(',"\n') else text
