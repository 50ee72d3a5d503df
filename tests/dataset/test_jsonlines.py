"""The official JSON-lines layout: images as base64 text or as paths."""

import base64
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from common.errors import BadRecord, UserError
from dataset import jsonlines
from dataset.jsonlines import JsonLinesSource, line_index
from dataset.records import open_source
from dataset.shards import ShardSource, ShardWriter
from dataset.storage import Storage


def write_lines(path: Path, lines: list[Any]) -> Path:
    path.write_text(
        "".join((line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)) + "\n" for line in lines), encoding="utf-8"
    )
    return path


def base64_line(number: int) -> dict[str, Any]:
    return {"binary": base64.b64encode(bytes([number] * 9)).decode(), "caption": [f"größe {number}"], "elems": []}


def test_base64_images_are_decoded_and_taken_out_of_the_annotation(tmp_path: Path):
    write_lines(tmp_path / "part-0", [base64_line(0), base64_line(1)]).rename(tmp_path / "part-0.json")
    write_lines(tmp_path / "part-1.json", [base64_line(2)])
    source = JsonLinesSource(str(tmp_path / "part-*.json"))
    assert len(source) == 3
    for number in (2, 0, 1):
        assert source[number].image == bytes([number] * 9)
        assert source[number].annotation == {"caption": [f"größe {number}"], "elems": []}
    assert [source[i].key for i in range(3)] == ["part-0.json:1", "part-0.json:2", "part-1.json:1"]


def test_image_paths_start_from_the_image_root_and_stay_in_the_annotation(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(b"pixels")
    file = write_lines(tmp_path / "list.jsonl", [{"image": "a.jpg", "caption": "x"}, {"image": "b.jpg", "caption": "y"}])
    source = JsonLinesSource(str(file), image_key="image", image_root=tmp_path / "photos")
    assert (source[0].image, source[0].annotation) == (b"pixels", {"image": "a.jpg", "caption": "x"})
    with pytest.raises(BadRecord, match=r'list\.jsonl, line 2: image "b\.jpg" cannot be read'):
        source[1]
    absolute = write_lines(tmp_path / "absolute.jsonl", [{"image": str(tmp_path / "photos/a.jpg")}])
    assert JsonLinesSource(str(absolute), "image", image_root="")[0].image == b"pixels"


def test_a_folder_is_read_without_its_marks(tmp_path: Path):
    write_lines(tmp_path / "part-0.json", [base64_line(0)])
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".part-0.json.crc").touch()
    assert len(JsonLinesSource(str(tmp_path))) == 1


def test_blank_lines_are_no_records_and_a_last_line_needs_no_newline(tmp_path: Path):
    file = tmp_path / "a.json"
    file.write_text("\n" + json.dumps(base64_line(0)) + "\n  \n" + json.dumps(base64_line(1)))
    source = JsonLinesSource(str(file))
    assert [source[i].key for i in range(len(source))] == ["a.json:2", "a.json:4"]
    (tmp_path / "empty.json").touch()
    assert len(JsonLinesSource(str(tmp_path / "empty.json"))) == 0


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{broken", "not valid JSON"),
        ("[1, 2]", "a list, not a JSON object"),
        ({"caption": "x"}, r'has no image under "binary" \(its keys: caption\)'),
        ({"binary": ["a", "b"]}, '"binary" is a list, not text'),
        ({"binary": "photos/a.jpg"}, '"binary" is not base64 text .*set image_root'),
    ],
)
def test_a_bad_line_is_named_and_spares_the_others(tmp_path: Path, line: Any, reason: str):
    source = JsonLinesSource(str(write_lines(tmp_path / "a.json", [line, base64_line(1)])))
    with pytest.raises(BadRecord, match=rf"a\.json, line 1: {reason}"):
        source[0]
    assert source[1].image == bytes([1] * 9)


def test_lines_without_an_image_are_texts_where_no_image_is_needed(tmp_path: Path):
    file = write_lines(tmp_path / "a.jsonl", [{"text": "words"}])
    record = open_source(str(file), need_image=False)[0]
    assert record.image is None and record.annotation == {"text": "words"}


def test_the_line_index_of_a_large_file_is_kept_and_not_trusted_when_the_file_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jsonlines, "KEEP_INDEX_FROM", 10)
    file = write_lines(tmp_path / "a.jsonl", [base64_line(0), base64_line(1)])
    first, size = line_index(file, Storage())
    assert size == file.stat().st_size
    kept = tmp_path / "a.jsonl.lines.npz"
    assert kept.exists()
    monkeypatch.setattr(jsonlines, "_find_lines", None)  # it would be called if the kept index was not used
    assert (line_index(file, Storage())[0] == first).all()
    monkeypatch.undo()
    monkeypatch.setattr(jsonlines, "KEEP_INDEX_FROM", 10)
    write_lines(file, [base64_line(number) for number in range(3)])
    assert len(JsonLinesSource(str(tmp_path / "*"))) == 3  # neither is the index taken for data
    kept.write_bytes(b"damaged")
    assert len(line_index(file, Storage())[0]) == 3


def test_a_pickled_source_opens_its_own_files(tmp_path: Path):
    source = JsonLinesSource(str(write_lines(tmp_path / "a.json", [base64_line(0)])))
    assert pickle.loads(pickle.dumps(source))[0] == source[0]


def test_the_layout_follows_from_the_file_names(tmp_path: Path):
    lines = write_lines(tmp_path / "a.jsonl", [base64_line(0)])
    with ShardWriter(tmp_path, "s") as writer:
        writer.write("k", b"1", {"caption": "x"})
    assert isinstance(open_source(str(lines)), JsonLinesSource)
    assert isinstance(open_source(str(tmp_path / "s-*.tar")), ShardSource)
    with pytest.raises(UserError, match=r"holds \.jsonl, \.tar files"):
        open_source(str(tmp_path / "*"))
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=r"holds \.txt files"):
        open_source(str(tmp_path / "notes.txt"))
    with pytest.raises(UserError, match="no data files are named"):
        open_source([])
