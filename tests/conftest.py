"""Fixtures that several test folders share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from common.compat import ensure_torchvision
from small_run import write_data

ensure_torchvision()  # before a test module imports transformers


@pytest.fixture(autouse=True)
def _fresh_precision() -> Iterator[None]:
    """Accelerate keeps one precision a process; a test that took another must not decide for the next."""
    yield
    AcceleratorState._reset_state()


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny embedded data set; do not write into it."""
    return write_data(tmp_path_factory.mktemp("shapeworld") / "data")
