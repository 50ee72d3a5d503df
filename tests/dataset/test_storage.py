"""Files that fail, and files behind URLs."""

import errno
import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

import faulty_files
from common.errors import BadRecord, UserError
from dataset.activity import noting_slow_reads
from dataset.config import StorageSettings
from dataset.files import FileReader, expand_patterns
from dataset.jsonlines import JsonLinesSource
from dataset.records import open_source
from dataset.remote import RemoteFile, measured, protocol_of
from dataset.shard_index import index_path
from dataset.shards import ShardSource, ShardWriter
from dataset.storage import Storage, cache_folder
from dataset.transforms import read_image
from fake_records import encoded, picture

SAMPLE = 60_000


@pytest.fixture(autouse=True)
def faulty() -> None:
    faulty_files.register()


def storage_in(folder: Path, shards: float = 100, **settings: float) -> Storage:
    """A cache with room for so many shards of three samples."""
    limit = shards * (3 * SAMPLE + 9000) / 1e9
    return Storage(StorageSettings(cache=str(folder / "cache"), cache_gb=limit, **({"retry_wait": 0.0} | settings)))  # pyright: ignore[reportArgumentType]


def write_shards(folder: Path, samples: int = 12) -> list[Path]:
    with ShardWriter(folder, "images", 3) as writer:
        for number in range(samples):
            writer.write(f"key{number}", bytes([number]) * SAMPLE, {"caption": f"text {number}"})
    return writer.shards


def assert_whole(source: ShardSource, samples: int = 12) -> None:
    assert len(source) == samples
    for number in range(samples):
        assert (source[number].key, source[number].image) == (f"key{number}", bytes([number]) * SAMPLE)


def copies(folder: Path) -> list[str]:
    return sorted(path.name[33:] for path in (folder / "cache/data").iterdir())


def eventually(condition: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_remote_shards_are_read_like_local_ones(tmp_path: Path):
    write_shards(tmp_path / "far")
    source = ShardSource(faulty_files.url(tmp_path / "far/images-{000000..000003}.tar"), storage=storage_in(tmp_path))
    assert_whole(source)
    assert_whole(pickle.loads(pickle.dumps(source)))
    assert len(faulty_files.fetched(tmp_path / "far")) == 4


def test_wildcards_and_folders_of_a_remote_file_system_are_expanded(tmp_path: Path):
    write_shards(tmp_path / "far")
    (tmp_path / "far/_SUCCESS").touch()
    for pattern in (faulty_files.url(tmp_path / "far/images-*.tar"), f"{faulty_files.url(tmp_path / 'far')}/"):
        found = expand_patterns(pattern)
        assert [file.name for file in found] == [f"images-00000{number}.tar" for number in range(4)]
        assert all(isinstance(file, RemoteFile) and file.size for file in found)
    with pytest.raises(UserError, match=r"vg-\*\.tar: no such file"):
        expand_patterns(faulty_files.url(tmp_path / "far/vg-*.tar"))


def test_any_protocol_of_fsspec_is_read(tmp_path: Path):
    system = fsspec.filesystem("memory")
    for shard in write_shards(tmp_path):
        system.put_file(str(shard), f"/any/{shard.name}")
    assert_whole(ShardSource("memory://any/images-*.tar", storage=storage_in(tmp_path)))
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"text": "one"}\n{"text": "two"}\n')
    system.put_file(str(lines), "/any/lines.jsonl")
    for _ in range(2):  # found, then taken from the cache
        records = open_source("memory://any/lines.jsonl", need_image=False, storage=storage_in(tmp_path))
        assert [records[number].annotation["text"] for number in range(len(records))] == ["one", "two"]


def test_file_urls_are_local_paths(tmp_path: Path):
    write_shards(tmp_path)
    assert_whole(ShardSource(f"file://{tmp_path}/images-*.tar", storage=storage_in(tmp_path)))
    assert not (tmp_path / "cache").exists()


def test_opening_remote_shards_with_indexes_fetches_none_of_them(tmp_path: Path):
    write_shards(tmp_path / "far", 60)
    source = ShardSource(faulty_files.url(tmp_path / "far/images-*.tar"), storage=storage_in(tmp_path))
    assert len(source) == 60
    assert faulty_files.fetched(tmp_path / "far") == []


def test_a_remote_shard_without_an_index_is_scanned_once_and_its_index_kept_when_the_copy_goes(tmp_path: Path):
    for shard in write_shards(tmp_path / "far"):
        index_path(shard).unlink()
    for _ in range(2):
        source = ShardSource(faulty_files.url(tmp_path / "far/images-*.tar"), storage=storage_in(tmp_path, shards=1))
        assert len(source) == 12
    assert len(faulty_files.fetched(tmp_path / "far")) == 4


def test_the_least_recently_used_copy_goes_first_and_the_limit_holds(tmp_path: Path):
    write_shards(tmp_path / "far")
    storage = storage_in(tmp_path, shards=2)
    source = ShardSource(faulty_files.url(tmp_path / "far/images-*.tar"), open_files=1, storage=storage)
    for number in (0, 3, 0, 6):  # shards 0, 1, 0 again, 2
        assert source[number].key == f"key{number}"
        assert storage.cache.used() <= storage.cache.limit
    assert copies(tmp_path) == ["images-000000.tar", "images-000002.tar"]
    assert_whole(source)
    assert storage.cache.used() <= storage.cache.limit


def test_a_reader_keeps_what_it_has_open_and_lets_removed_copies_go_at_its_next_opening(tmp_path: Path):
    write_shards(tmp_path / "far")
    url, storage = faulty_files.url(tmp_path / "far/images-*.tar"), storage_in(tmp_path, shards=1)
    first, second = ShardSource(url, storage=storage), ShardSource(url, storage=storage)
    assert first[0].key == "key0"
    assert second[3].key == "key3"
    assert copies(tmp_path) == ["images-000001.tar"]
    assert first[1].image == bytes([1]) * SAMPLE
    assert len(faulty_files.fetched(tmp_path / "far")) == 2
    held = [file.name for file in first._reader._open]
    first[6]
    assert held == ["images-000000.tar"]
    assert [file.name for file in first._reader._open] == ["images-000002.tar"]


def test_a_shard_larger_than_the_cache_is_an_error_at_the_start(tmp_path: Path):
    write_shards(tmp_path / "far")
    with pytest.raises(UserError, match=r"images-00000.\.tar: has 0.000187 GB, more than storage.cache_gb = 9.45e-05"):
        ShardSource(faulty_files.url(tmp_path / "far/images-*.tar"), storage=storage_in(tmp_path, shards=0.5))


def _read_all(url: str, storage: Storage) -> None:
    assert_whole(ShardSource(url, storage=storage))


def test_processes_share_one_copy_and_fetch_it_once(tmp_path: Path):
    for shard in write_shards(tmp_path / "far"):
        shard.with_name(f"{shard.name}.wait").write_text("0.1")
        index_path(shard).unlink()
    url, context = faulty_files.url(tmp_path / "far/images-{000000..000003}.tar"), multiprocessing.get_context("fork")
    processes = [context.Process(target=_read_all, args=(url, storage_in(tmp_path))) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert sorted(faulty_files.fetched(tmp_path / "far")) == [f"images-00000{number}.tar" for number in range(4)]


def test_a_cache_smaller_than_what_is_read_at_a_time_is_slow_but_right(tmp_path: Path):
    write_shards(tmp_path / "far")
    url, context = faulty_files.url(tmp_path / "far/images-*.tar"), multiprocessing.get_context("fork")
    processes = [context.Process(target=_read_all, args=(url, storage_in(tmp_path, shards=1))) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 3
    assert len(copies(tmp_path)) == 1


def test_a_killed_fetch_leaves_nothing_that_is_taken_for_a_copy_and_its_room_is_freed(tmp_path: Path):
    shards = write_shards(tmp_path / "far")
    slow = shards[0].with_name(f"{shards[0].name}.wait")
    slow.write_text("600")
    url, storage = faulty_files.url(tmp_path / "far/images-*.tar"), storage_in(tmp_path, shards=1)
    process = multiprocessing.get_context("fork").Process(target=_read_all, args=(url, storage))
    process.start()
    data = tmp_path / "cache/data"
    assert eventually(lambda: data.is_dir() and any(path.stat().st_size for path in data.glob("*.partial")))
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    slow.unlink()
    source = ShardSource(url, storage=storage)
    assert source[3].key == "key3"  # another shard, for which the abandoned one has to make room
    assert_whole(source)
    assert list(data.glob("*.partial")) == []


def test_a_fetch_that_fails_leaves_nothing(tmp_path: Path):
    shards = write_shards(tmp_path / "far")
    source = ShardSource(faulty_files.url(tmp_path / "far/images-*.tar"), storage=storage_in(tmp_path))
    shards[0].with_name(f"{shards[0].name}.half").write_text("yes")
    with pytest.raises(BadRecord, match=r"images-000000\.tar: cannot be read any more \([\d,]+ bytes came where [\d,]+ were announced\)"):
        source[0]
    assert faulty_files.fetched(tmp_path / "far") == ["images-000000.tar"] * 3  # fetched again as long as it was too short
    assert copies(tmp_path) == []
    assert source[3].key == "key3"


def test_a_damaged_copy_is_fetched_again(tmp_path: Path):
    write_shards(tmp_path / "far")
    url, storage = faulty_files.url(tmp_path / "far/images-*.tar"), storage_in(tmp_path)
    assert_whole(ShardSource(url, storage=storage))
    copy = min((tmp_path / "cache/data").iterdir(), key=lambda path: path.name[33:])
    os.truncate(copy, 1000)
    assert_whole(ShardSource(url, storage=storage))
    assert faulty_files.fetched(tmp_path / "far").count("images-000000.tar") == 2


def test_a_remote_shard_that_was_replaced_is_fetched_anew_by_the_next_run(tmp_path: Path):
    shard = write_shards(tmp_path / "far", 3)[0]
    assert ShardSource(faulty_files.url(shard), storage=storage_in(tmp_path))[0].key == "key0"
    with ShardWriter(tmp_path / "far", "images") as writer:
        writer.write("other", b"x" * 100, {"caption": "x"})
    assert ShardSource(faulty_files.url(shard), storage=storage_in(tmp_path))[0].key == "other"


def test_a_missing_or_cut_remote_shard_is_named_at_the_start(tmp_path: Path):
    shards = write_shards(tmp_path / "far")
    with pytest.raises(UserError, match=r"images-000009\.tar: missing"):
        ShardSource(faulty_files.url(tmp_path / "far/images-000009.tar"), storage=storage_in(tmp_path))
    os.truncate(shards[1], 5000)
    with pytest.raises(UserError, match=r"images-000001\.tar: truncated shard"):
        ShardSource(faulty_files.url(tmp_path / "far/images-*.tar"), storage=storage_in(tmp_path))


@pytest.mark.parametrize(("protocol", "package"), [("s3", "s3fs"), ("gs", "gcsfs"), ("https", "aiohttp")])
def test_a_missing_protocol_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, package: str):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"^{protocol}://bucket/a\.tar: reading {protocol}:// needs .*: pip install {package}$"):
        ShardSource(f"{protocol}://bucket/a.tar", storage=storage_in(tmp_path))
    with pytest.raises(UserError, match=r"nosuch://a/b\.tar: nosuch:// cannot be read"):
        ShardSource("nosuch://a/b.tar", storage=storage_in(tmp_path))


def test_urls_are_told_from_paths_and_named_without_their_secrets():
    assert [protocol_of(text) for text in ("s3://a/b", "HTTPS://x")] == ["s3", "https"]
    assert not any(protocol_of(text) for text in ("data/a.tar", "file:///a", "/a://b"))
    signed = RemoteFile("https://user:word@host/dir/a.tar?signature=secret")
    assert (signed.name, signed.suffix, str(signed)) == ("a.tar", ".tar", "https://host/dir/a.tar")
    assert signed.beside(".index.json") is None
    assert str(RemoteFile("s3://bucket/a.tar").beside(".index.json")) == "s3://bucket/a.tar.index.json"


def test_the_cache_is_in_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder(None) == Path("/somewhere/multigrain/shards")
    assert cache_folder("~/mine") == Path.home() / "mine"


def test_errors_of_other_libraries_are_like_any_failure_of_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Refused(Exception):
        status = 403

    shard, errors = RemoteFile(faulty_files.url(write_shards(tmp_path)[0])), [ValueError("odd answer"), Refused("no")]

    def fail(*_: object) -> None:
        raise errors.pop(0)

    monkeypatch.setattr(faulty_files.FaultyFileSystem, "info", fail)
    for expected in (OSError, PermissionError):
        with pytest.raises(expected):
            measured(shard)


def failing(monkeypatch: pytest.MonkeyPatch, *errors: int) -> list[int]:
    """Let the next calls of os.pread fail with these; returns how many calls there were."""
    left, calls, real = list(errors), [0], os.pread

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        calls[0] += 1
        if left:
            code = left.pop(0)
            raise OSError(code, os.strerror(code))
        return real(descriptor, size, offset)

    monkeypatch.setattr("os.pread", pread)
    return calls


def test_a_read_that_fails_twice_and_then_works_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a").write_bytes(b"0123456789")
    reader = FileReader(storage=storage_in(tmp_path))
    failing(monkeypatch, errno.EIO, errno.ESTALE)
    assert reader.read(tmp_path / "a", 2, 3, 10) == b"234"


def test_a_stale_handle_is_opened_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a").write_bytes(b"0123456789")
    reader = FileReader(storage=storage_in(tmp_path))
    reader.read(tmp_path / "a", 0, 1, 10)
    before = reader._open[tmp_path / "a"]
    failing(monkeypatch, errno.ESTALE)
    assert reader.read(tmp_path / "a", 2, 3, 10) == b"234"
    assert reader._open[tmp_path / "a"] is not before


def test_waits_double_and_a_lost_file_is_waited_for_twice_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a").write_bytes(b"0123456789")
    reader, waits = FileReader(storage=storage_in(tmp_path, retry_wait=0.5, tries=4)), []
    monkeypatch.setattr("time.sleep", waits.append)
    calls = failing(monkeypatch, *[errno.EIO] * 9)
    for tried in (4, 8, 9):
        with pytest.raises(BadRecord, match=r"/a: cannot be read any more \(Input/output error\)") as caught:
            reader.read(tmp_path / "a", 0, 4, 10)
        assert caught.value.kind == "shard"
        assert calls[0] == tried
    assert waits == [0.5, 1.0, 2.0] * 2
    assert reader.read(tmp_path / "a", 0, 4, 10) == b"0123"  # it came back
    failing(monkeypatch, errno.EIO)
    assert reader.read(tmp_path / "a", 0, 4, 10) == b"0123"


def test_a_file_replaced_by_one_of_another_size_is_not_read(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"0123456789")
    reader = FileReader(storage=storage_in(tmp_path))
    with pytest.raises(BadRecord, match=r"replaced after it was indexed, it has 10 bytes instead of 8"):
        reader.read(tmp_path / "a", 0, 4, 8)


def test_start_up_is_patient_too(tmp_path: Path):
    shards = write_shards(tmp_path / "far")
    index = index_path(shards[0])
    index.with_name(f"{index.name}.fail").write_text("2")
    assert_whole(ShardSource(faulty_files.url(tmp_path / "far/images-*.tar"), storage=storage_in(tmp_path)))
    index.with_name(f"{index.name}.fail").write_text("9")
    other = storage_in(tmp_path / "other")
    with pytest.raises(UserError, match=r"images-000000\.tar: cannot be read \(Input/output error\)"):
        ShardSource(faulty_files.url(tmp_path / "far/images-*.tar"), storage=other)


def test_an_image_file_that_fails_once_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.png").write_bytes(encoded(picture(1)))
    left, real = [OSError(errno.EIO, "bad luck")], Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if left:
            raise left.pop()
        return real(path)

    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert read_image(tmp_path / "a.png").size == (64, 48)
    with pytest.raises(BadRecord, match="no such file") as caught:
        read_image(tmp_path / "b.png")
    assert caught.value.kind == "image"


def test_a_slow_read_is_noted_with_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_shards(tmp_path)
    slow = ShardSource(str(tmp_path / "images-*.tar"), storage=storage_in(tmp_path, slow_seconds=1e-9))
    monkeypatch.setattr("dataset.storage.SLOW_RATE", 1e18)
    with noting_slow_reads() as noted:
        slow[3]
    assert {read.file for read in noted} == {str(tmp_path / "images-000001.tar")}
    with noting_slow_reads() as noted:
        ShardSource(str(tmp_path / "images-*.tar"))[3]
    assert noted == []


def test_images_apart_from_remote_lines_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match="image_root s3://b/images: images apart from their records cannot be remote"):
        JsonLinesSource(str(tmp_path), image_root="s3://b/images")
