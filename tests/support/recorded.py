"""Where the recorded cases of the official code are."""

from pathlib import Path

import pytest

from parity.case import Case, read_case

FIXTURES = Path(__file__).parents[1] / "fixtures" / "golden"
"""A few small ones, always there."""
GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden"
"""All of them, beside the project where it is developed."""


def recorded_folder(name: str) -> Path:
    """A case's folder, or skip the test."""
    folder = next((root / name for root in (FIXTURES, GOLDEN) if (root / name).is_dir()), None)
    if folder is None:
        pytest.skip("the recorded tensors of the official code are not beside this checkout")
    return folder


def recorded_case(name: str) -> Case:
    """A recorded case of a model, or skip the test."""
    return read_case(recorded_folder(name))
