"""The loader's memory stays flat, and the script that says so would notice if it did not."""

from pathlib import Path

import pytest

from common.errors import UserError
from scripts.soak_loader import Memory, check, soak


def test_memory_of_the_loader_is_flat(small_data: Path) -> None:
    memory = soak(small_data, 1600, workers=1, batch=8, looks=20)
    assert memory.megabytes.keys() == {"main", "worker 0"}
    assert memory.samples[-1] == 1600
    check(memory, bound=8.0)


def test_a_leak_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    memory = Memory(list(range(100)), {"main": [300.0] * 100, "worker 0": [200.0 + 0.2 * look for look in range(100)]})
    with pytest.raises(UserError, match=r"grew by more than 8 MB after warm-up: main \+0\.0 MB, worker 0 \+12\.0 MB"):
        check(memory, bound=8.0)
    check(memory, bound=13.0)
    assert "memory is flat" in capsys.readouterr().out
