"""Disks that fill up and bytes that flip, under a training of several processes."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.board import LocalBoard
from engine.checkpoints import CheckpointStore
from small_run import curve, pretrain_settings, run, write_config

STEPS = 6


@pytest.fixture(scope="module")
def config(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("faults") / "config.yaml", pretrain_settings(small_data, STEPS))


def test_a_flipped_byte_in_what_two_ranks_wrote_makes_one_rank_go_on_from_the_checkpoint_before(config: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    done = run("pretrain", config, output, "--nproc", "2")
    assert done.returncode == 0, done.stderr
    newest = output / "checkpoints" / f"step-{STEPS:08d}"
    assert len(list(newest.glob("model-*-of-00002.safetensors"))) == 2
    file = newest / "optimizer-00002-of-00002.safetensors"
    content = file.read_bytes()
    file.write_bytes(bytes([*content[:-1], content[-1] ^ 1]))
    again = run("pretrain", config, output)
    assert again.returncode == 0, again.stderr
    assert f"{file.name}: its checksum is not that in manifest.json" in again.stderr
    assert "step-00000003, step 3" in again.stderr, "it went on from the one before"
    assert sorted(curve(output)) == list(range(1, STEPS + 1))
    assert (newest / "model.safetensors").is_file() and not file.exists(), "the damaged one was replaced"


@pytest.fixture
def nearly_full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for the spare bytes of a checkpoint and one MB more."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=65m", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("no right to mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_training_whose_disk_is_full_ends_well_with_the_last_checkpoint_good(
    config: Path, tmp_path: Path, nearly_full_disk: Path
) -> None:
    output = tmp_path / "run"
    output.mkdir()
    (output / "checkpoints").symlink_to(nearly_full_disk)
    done = run("pretrain", config, output, "--nproc", "2", "--set", "engine.checkpoint_every=1", "engine.keep_checkpoints=99")
    assert done.returncode == 0, done.stderr
    failed = re.findall(r"checkpoint of step (\d+) could not be written \(no space: .* the last good checkpoint is step (\d+)", done.stderr)
    assert failed, done.stderr
    last = int(failed[0][0]) - 1
    assert last >= 1 and {int(good) for _, good in failed} == {last}
    assert max(curve(output)) == STEPS
    loaded = CheckpointStore(nearly_full_disk, 2, LocalBoard()).load_latest()
    assert loaded is not None and loaded.state.step == last
