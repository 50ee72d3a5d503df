"""What tests of tasks share: three pictures in a folder, and texts without masking."""

from pathlib import Path

import pytest

from dataset.streams.base import TextSide
from fake_records import encoded, picture, small_tokenizer


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> TextSide:
    return TextSide(small_tokenizer(tmp_path_factory.mktemp("tokenizer")), 24, None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(encoded(picture(i)))
    return tmp_path
