"""Fixtures that several test folders share."""

from pathlib import Path

import pytest

from common.compat import ensure_torchvision
from small_run import write_data

ensure_torchvision()  # before a test module imports transformers


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny embedded data set; do not write into it."""
    return write_data(tmp_path_factory.mktemp("shapeworld") / "data")
