"""Shards: what is written is read back, from any process, and damage is named."""

import json
import multiprocessing
import os
import pickle
import signal
import tarfile
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from common.errors import BadRecord, UserError
from dataset.records import open_source
from dataset.shard_index import index_path
from dataset.shards import ShardSource, ShardWriter


def image_bytes(number: int) -> bytes:
    return bytes([number % 256]) * (500 + number)


def write_set(folder: Path, samples: int = 10, max_samples: int = 4) -> list[Path]:
    with ShardWriter(folder, "images", max_samples) as writer:
        for number in range(samples):
            writer.write(f"key{number}", image_bytes(number), {"caption": f"größe {number}"})
    return writer.shards


def assert_whole(source: ShardSource, samples: int = 10) -> None:
    assert len(source) == samples
    for number in reversed(range(samples)):
        record = source[number]
        assert (record.key, record.image, record.annotation) == (f"key{number}", image_bytes(number), {"caption": f"größe {number}"})


def test_samples_are_read_back_in_any_order(tmp_path: Path):
    shards = write_set(tmp_path)
    assert [shard.name for shard in shards] == ["images-000000.tar", "images-000001.tar", "images-000002.tar"]
    assert_whole(ShardSource([str(tmp_path / "images-*.tar")]))
    assert_whole(ShardSource(str(tmp_path / "images-{000000..000002}.tar")))


def test_more_shards_than_open_files_are_read(tmp_path: Path):
    write_set(tmp_path, max_samples=1)
    source = ShardSource(str(tmp_path / "*.tar"), open_files=2)
    assert_whole(source)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    assert_whole(source)
    assert before == 0 or len(os.listdir("/proc/self/fd")) == before


def test_a_shard_is_a_tar_file_that_others_read(tmp_path: Path):
    shard = write_set(tmp_path, samples=2)[0]
    with tarfile.open(shard) as archive:
        assert archive.getnames() == ["key0.jpg", "key0.json", "key1.jpg", "key1.json"]
        assert all(member.mtime == 0 for member in archive.getmembers())
        member = archive.extractfile("key1.jpg")
        assert member is not None and member.read() == image_bytes(1)


def test_the_same_samples_give_the_same_bytes(tmp_path: Path):
    first, second = write_set(tmp_path / "a"), write_set(tmp_path / "b")
    assert [shard.read_bytes() for shard in first] == [shard.read_bytes() for shard in second]
    assert [index_path(shard).read_bytes() for shard in first] == [index_path(shard).read_bytes() for shard in second]


def test_long_and_foreign_keys_survive(tmp_path: Path):
    keys = ["x" * 180, "bild/größe 1", "b"]
    with ShardWriter(tmp_path, "s") as writer:
        for key in keys:
            writer.write(key, key.encode(), {"caption": key})
    for again in range(2):
        source = ShardSource(str(tmp_path / "s-*.tar"))
        assert [(source[i].key, source[i].image) for i in range(3)] == [(key, key.encode()) for key in keys]
        if again == 0:
            index_path(writer.shards[0]).unlink()  # the scan must find the same


@pytest.mark.parametrize("key", ["", "a.b", "a\nb", "/a"])
def test_a_key_that_cannot_name_a_member_is_refused(tmp_path: Path, key: str):
    with pytest.raises(ValueError, match="cannot name a sample"), ShardWriter(tmp_path, "s") as writer:
        writer.write(key, b"", {})


def test_two_samples_of_one_key_are_refused(tmp_path: Path):
    with ShardWriter(tmp_path, "s") as writer:
        writer.write("a", b"1", {})
        with pytest.raises(ValueError, match="two samples"):
            writer.write("a", b"2", {})


def test_a_lost_or_damaged_index_is_made_again(tmp_path: Path):
    first, second, third = write_set(tmp_path)
    index_path(first).unlink()
    index_path(second).write_text('{"format": 1, "keys": ["a"')
    index_path(third).write_text('{"format": 1, "size": 1, "keys": ["a", "b"], "places": [[0, 1]]}')
    stored = [index_path(write).read_bytes() for write in write_set(tmp_path / "again")]
    assert_whole(ShardSource(str(tmp_path / "*.tar")))
    assert [index_path(shard).read_bytes() for shard in (first, second, third)] == stored


def test_a_shard_in_a_folder_that_cannot_be_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shard = write_set(tmp_path, max_samples=100)[0]
    index_path(shard).unlink()

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.replace", refuse)
    assert_whole(ShardSource(str(shard)))
    assert os.listdir(tmp_path) == [shard.name]


def test_a_missing_shard_is_named(tmp_path: Path):
    write_set(tmp_path)
    with pytest.raises(UserError, match=r"vg-\*\.tar: no such file"):
        ShardSource([str(tmp_path / "images-*.tar"), str(tmp_path / "vg-*.tar")])
    with pytest.raises(UserError, match=r"images-000003\.tar: no such file"):
        ShardSource(str(tmp_path / "images-{000000..000003}.tar"))
    with pytest.raises(UserError, match="braces"):
        ShardSource(str(tmp_path / "images-{0..3.tar"))


def test_a_shard_that_vanishes_after_it_was_opened_is_named(tmp_path: Path):
    shards = write_set(tmp_path)
    source = ShardSource(str(tmp_path / "*.tar"))
    shards[1].unlink()
    assert source[0].key == "key0"
    with pytest.raises(BadRecord, match=r"images-000001\.tar: cannot be read any more \(no such file\)") as caught:
        source[5]
    assert caught.value.kind == "shard"


@pytest.mark.parametrize("cut", [1, 512, 1024, 1500, 2100, 3000])
def test_a_truncated_shard_is_named_with_its_index(tmp_path: Path, cut: int):
    shard = write_set(tmp_path, samples=3)[0]
    os.truncate(shard, shard.stat().st_size - cut)
    with pytest.raises(UserError, match=r"images-000000\.tar: truncated shard"):
        ShardSource(str(shard))


@pytest.mark.parametrize("indexed", [True, False])
def test_every_cut_of_a_shard_is_noticed(tmp_path: Path, indexed: bool):
    shard = write_set(tmp_path, samples=3)[0]
    whole = shard.read_bytes()
    if not indexed:
        index_path(shard).unlink()
    for size in range(0, len(whole), 101):
        shard.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"images-000000\.tar: truncated shard"):
            ShardSource(str(shard))
    assert indexed or not index_path(shard).exists()


def test_a_shard_cut_while_it_is_open_is_named(tmp_path: Path):
    shard = write_set(tmp_path, max_samples=100)[0]
    source = ShardSource(str(shard))
    source[0]
    os.truncate(shard, 2000)
    for _ in range(2):  # the handle that was open, then a new one
        with pytest.raises(BadRecord, match=r"images-000000\.tar: cannot be read any more \(truncated after it was indexed") as caught:
            source[9]
        assert caught.value.kind == "shard"


def test_a_compressed_or_foreign_file_is_named(tmp_path: Path):
    (tmp_path / "a.tar").write_bytes(b"\x1f\x8b" + bytes(range(200)) * 20)
    (tmp_path / "b.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(UserError, match=r"a\.tar: compressed shard"):
        ShardSource(str(tmp_path / "a.tar"))
    with pytest.raises(UserError, match=r"b\.tar: truncated shard or not a tar file"):
        ShardSource(str(tmp_path / "b.tar"))


def foreign_shard(path: Path, members: dict[str, bytes]) -> ShardSource:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            source = path.with_suffix(".member")
            source.write_bytes(data)
            with source.open("rb") as file:
                archive.addfile(member, file)
    return ShardSource(str(path))


def test_one_bad_record_does_not_spoil_its_shard(tmp_path: Path):
    good = json.dumps({"caption": "x"}).encode()
    members = {
        "a.jpg": b"1",
        "a.json": b"{broken",
        "b.json": good,
        "c.jpg": b"3",
        "d.jpg": b"4",
        "d.json": b"[1]",
        "e.PNG": b"5",
        "e.json": good,
    }
    source = foreign_shard(tmp_path / "f.tar", members | {"e.txt": b"ignored"})
    reasons = {
        0: "sample a: the annotation is not valid JSON",
        1: "sample b: has no image",
        2: "sample c: has no annotation",
        3: "sample d.*list",
    }
    for number, reason in reasons.items():
        with pytest.raises(BadRecord, match=rf"f\.tar, {reason}"):
            source[number]
    assert source[4].image == b"5"
    assert ShardSource(str(tmp_path / "f.tar"), need_image=False)[1].image is None


def test_samples_without_an_image_are_written_and_read(tmp_path: Path):
    with ShardWriter(tmp_path, "texts") as writer:
        writer.write("a", None, {"text": "words"})
    record = open_source(str(tmp_path / "texts-*.tar"), need_image=False)[0]
    assert record.image is None and record.annotation == {"text": "words"}


def test_an_error_in_the_writer_drops_the_shard_under_way_and_keeps_finished_ones(tmp_path: Path):
    def write_and_fail() -> None:
        with ShardWriter(tmp_path, "images", max_samples=2) as writer:
            for number in range(3):
                writer.write(f"key{number}", image_bytes(number), {"caption": "x"})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    assert sorted(os.listdir(tmp_path)) == ["images-000000.tar", "images-000000.tar.index.json"]


def _write_and_die(folder: Path) -> None:
    writer = ShardWriter(folder, "images", max_samples=2).__enter__()
    for number in range(3):
        writer.write(f"key{number}", image_bytes(number) * 100, {"caption": "x"})
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_writer_leaves_no_half_shard_under_a_final_name(tmp_path: Path):
    process = multiprocessing.get_context("fork").Process(target=_write_and_die, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    source = ShardSource(str(tmp_path))  # the whole folder: what is left of the half shard is hidden
    assert [shard.name for shard in source.shards] == ["images-000000.tar"]
    assert len(source) == 2
    assert_whole(ShardSource([str(shard) for shard in write_set(tmp_path)]))  # and writing again needs no cleaning up


def test_a_shard_written_again_does_not_keep_its_old_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shard = write_set(tmp_path, max_samples=100)[0]

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dataset.shards.store_index", die)  # killed between the shard and its index
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path, "images") as writer:
        writer.write("other", b"x" * 500, {"caption": "x"})
    monkeypatch.undo()
    assert ShardSource(str(shard))[0].key == "other"


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_read_the_same_records(tmp_path: Path, start: str):
    write_set(tmp_path, samples=40, max_samples=7)
    source = ShardSource(str(tmp_path / "*.tar"), open_files=2)
    source[0]  # forked workers inherit a file that is already open
    loader = DataLoader(
        source,  # pyright: ignore[reportArgumentType]
        batch_size=None,
        num_workers=2,
        multiprocessing_context=start,
    )
    assert [(record.key, record.image) for record in loader] == [(f"key{i}", image_bytes(i)) for i in range(40)]


def test_a_pickled_source_opens_its_own_files(tmp_path: Path):
    write_set(tmp_path)
    source = ShardSource(str(tmp_path / "*.tar"))
    source[0]
    assert_whole(pickle.loads(pickle.dumps(source)))


def test_a_sample_outside_the_set_is_an_index_error(tmp_path: Path):
    write_set(tmp_path)
    source = ShardSource(str(tmp_path / "*.tar"))
    for index in (-1, 10):
        with pytest.raises(IndexError):
            source[index]


def test_a_shard_keeps_at_most_fifty_bytes_a_sample_in_memory(tmp_path: Path):
    write_set(tmp_path, samples=300, max_samples=300)
    index = ShardSource(str(tmp_path / "*.tar"))._indexes[0]
    assert index.keys.nbytes + index.places.nbytes <= 50 * 300
