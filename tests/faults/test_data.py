"""Played faults of data: training goes on and counts what it left out, or stops and says why."""

import json
import re
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

import faulty_files
from dataset.config import StorageSettings
from dataset.shards import ShardSource, ShardWriter
from dataset.storage import Storage
from small_run import ROOT, command, curve, pretrain_settings, write_config
from warm_start import run_warm

SCRIPT = ROOT / "tests/support/faulty_run.py"
STEPS = 6


@pytest.fixture
def shards(small_data: Path, tmp_path: Path) -> Path:
    """The 24 records of the image stream in four shards."""
    source = ShardSource(str(small_data / "shards/images-*.tar"))
    with ShardWriter(tmp_path / "shards", "images", 6) as writer:
        for number in range(len(source)):
            record = source[number]
            assert record.image is not None
            writer.write(record.key, record.image, record.annotation, "png")
    assert len(writer.shards) == 4
    return tmp_path / "shards"


def play(settings: dict[str, Any], output: Path, scene: str = "", ranks: int = 1) -> subprocess.CompletedProcess[str]:
    """Train to the end, whatever that is."""
    config = write_config(output.with_suffix(".yaml"), settings)
    words = ["launch", *command("pretrain", config, output, "--nproc", str(ranks))[2:]]
    return run_warm([sys.executable, str(SCRIPT), *words], SCENE=scene)


def settings_for(small_data: Path, shards: str, share: float = 0.6) -> dict[str, Any]:
    settings = pretrain_settings(small_data, STEPS)
    settings["streams"]["images"]["shards"] = shards
    settings["engine"] |= {"max_bad_share": share, "log_every": 2}
    return settings | {"storage": {"retry_wait": 0.0}}


def counts(output: Path) -> dict[str, dict[str, int]]:
    return json.loads((output / "metrics.json").read_text())["streams"]


@pytest.mark.parametrize(
    ("scene", "said"), [("truncate 1", "truncated after it was indexed, it has 100 bytes instead of"), ("remove 0", "no such file")]
)
def test_a_shard_lost_in_mid_run_is_skipped_and_counted(small_data: Path, shards: Path, tmp_path: Path, scene: str, said: str) -> None:
    lost = shards / "images-000002.tar"
    settings = settings_for(small_data, str(shards / "images-*.tar"))
    settings["engine"]["workers"] = 1
    done = play(settings, tmp_path / "run", f"{scene} {lost}")
    assert done.returncode == 0, done.stderr
    images, regions = counts(tmp_path / "run")["images"], counts(tmp_path / "run")["regions"]
    assert images["shard"] >= (12 if scene == "remove 0" else 6)  # each of its six records in each of the two epochs, substitutes on top
    assert images["read"] == STEPS * 8 + images["shard"]
    assert (images["image"], images["annotation"]) == (0, 0)
    assert regions == {"read": STEPS * 4, "image": 0, "annotation": 0, "shard": 0, "slow": 0}
    last = curve(tmp_path / "run")[STEPS]
    assert (last["skipped/images"], last["skipped_records"]) == (images["shard"], images["shard"])
    assert "skipped/regions" not in last
    listed = (tmp_path / "run/bad_records.txt").read_text().splitlines()
    assert any(line.startswith(f"images | lost shard | {lost}: cannot be read any more ({said}") for line in listed)
    assert all(str(lost) in line for line in listed)
    assert f"{images['shard']}</td>" in (tmp_path / "run/report.html").read_text()


def test_beyond_the_threshold_all_ranks_stop_with_the_shard_and_the_share(small_data: Path, shards: Path, tmp_path: Path) -> None:
    lost = shards / "images-000000.tar"
    done = play(settings_for(small_data, str(shards / "images-*.tar"), share=0.01), tmp_path / "run", f"remove 0 {lost}", ranks=2)
    assert done.returncode != 0
    logs = "".join(file.read_text() for file in (tmp_path / "run/logs").glob("*/attempt-1/rank-*.*"))
    messages = re.findall(r"\d+ of \d+ records read so far are unusable[^\"\n]*", logs)
    assert len(messages) > 1
    assert len(set(messages)) == 1
    assert f"lost shard), more than engine.max_bad_share = 0.01 allows; for example images | lost shard | {lost}" in messages[0]
    assert str(lost) in (tmp_path / "run/bad_records.txt").read_text()
    assert not (tmp_path / "run/metrics.json").exists()


@pytest.mark.slow
def test_remote_shards_that_fail_twice_give_the_run_of_local_ones(small_data: Path, shards: Path, tmp_path: Path) -> None:
    settings = settings_for(small_data, str(shards / "images-*.tar"), share=0.0)
    settings["engine"]["workers"] = 2
    local = play(settings, tmp_path / "local")
    assert local.returncode == 0, local.stderr
    for shard in shards.glob("*.tar"):
        shard.with_name(f"{shard.name}.fail").write_text("2")
    settings["streams"]["images"]["shards"] = faulty_files.url(shards / "images-*.tar")
    largest = max(shard.stat().st_size for shard in shards.glob("*.tar"))
    settings["storage"] |= {"cache": str(tmp_path / "cache"), "cache_gb": 2.5 * largest / 1e9}
    remote = play(settings, tmp_path / "remote")
    assert remote.returncode == 0, remote.stderr
    assert curve(tmp_path / "remote") == curve(tmp_path / "local")
    assert counts(tmp_path / "remote")["images"]["shard"] == 0
    assert len(list((tmp_path / "cache/data").iterdir())) <= 2
    assert all(faulty_files.fetched(shards).count(f"images-00000{number}.tar") >= 3 for number in range(4))


def test_a_killed_loader_process_ends_the_run_with_one_line(small_data: Path, shards: Path, tmp_path: Path) -> None:
    settings = settings_for(small_data, str(shards / "images-*.tar"))
    settings["engine"]["workers"] = 1
    done = play(settings, tmp_path / "run", "kill 4")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("a loader process of rank 0 (pid ")
    assert "was killed (signal 9; out of memory?)" in last


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *_: Any) -> None:
        pass


def test_shards_of_an_http_server_are_read_through_a_cache_smaller_than_they_are(shards: Path, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *given: Quiet(*given, directory=str(shards)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        largest = max(shard.stat().st_size for shard in shards.glob("*.tar"))
        storage = Storage(StorageSettings(cache=str(tmp_path / "cache"), cache_gb=2 * largest / 1e9, retry_wait=0.0))
        url = f"http://127.0.0.1:{server.server_port}/images-{{000000..000003}}.tar"
        remote, local = ShardSource(url, storage=storage), ShardSource(str(shards / "images-*.tar"))
        reader = DataLoader(remote, batch_size=None, num_workers=2)  # pyright: ignore[reportArgumentType]
        for records in (reader, [remote[number] for number in range(24)]):  # in forked workers, then here
            assert list(records) == [local[number] for number in range(24)]
        assert storage.cache.used() <= storage.cache.limit
        again = ShardSource(f"http://127.0.0.1:{server.server_port}/images-*.tar", storage=storage)  # the server lists its folder
        assert len(again) == 24
    finally:
        server.shutdown()
        server.server_close()
