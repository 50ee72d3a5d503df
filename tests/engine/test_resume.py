"""A run that is killed continues as if nothing had happened."""

import shutil
import signal
from pathlib import Path

import pytest

from processes import logged, started, wait_until
from small_run import command, curve, pretrain_settings, run, write_config

STEPS = 9


@pytest.fixture(scope="module")
def undisturbed(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Config and output of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    config = write_config(folder / "config.yaml", pretrain_settings(small_data, STEPS))
    done = run("pretrain", config, folder / "run")
    assert done.returncode == 0, done.stderr
    return config, folder / "run"


@pytest.mark.parametrize("killed_after", [1, 4])
def test_killed_run_resumes_to_the_same_losses_bit_for_bit(undisturbed: tuple[Path, Path], tmp_path: Path, killed_after: int) -> None:
    config, whole = undisturbed
    output = tmp_path / "run"
    with started(command("pretrain", config, output), tmp_path / "log") as process:
        wait_until(logged(output, killed_after), log=tmp_path / "log")
        process.kill()
        assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    again = run("pretrain", config, output)
    assert again.returncode == 0, again.stderr
    assert curve(output) == curve(whole)
    weights = [folder / "checkpoints" / f"step-{STEPS:08d}" / "model.safetensors" for folder in (output, whole)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_the_same_command_after_the_end_trains_nothing_more(undisturbed: tuple[Path, Path], tmp_path: Path) -> None:
    config, whole = undisturbed
    output = shutil.copytree(whole, tmp_path / "run")
    before = (output / "metrics.jsonl").read_text()
    again = run("pretrain", config, output)
    assert again.returncode == 0, again.stderr
    assert "finished at step 9" in again.stderr
    assert (output / "metrics.jsonl").read_text() == before


def test_a_damaged_checkpoint_falls_back_to_the_one_before(undisturbed: tuple[Path, Path], tmp_path: Path) -> None:
    config, whole = undisturbed
    output = shutil.copytree(whole, tmp_path / "run")
    file = output / "checkpoints" / f"step-{STEPS:08d}" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    again = run("pretrain", config, output)
    assert again.returncode == 0, again.stderr
    assert "cannot be read" in again.stderr
    assert curve(output) == curve(whole)


def test_loader_workers_change_nothing(undisturbed: tuple[Path, Path], tmp_path: Path) -> None:
    config, whole = undisturbed
    done = run("pretrain", config, tmp_path / "run", "--set", "engine.workers=2")
    assert done.returncode == 0, done.stderr
    assert curve(tmp_path / "run") == curve(whole)
