"""scripts/make_shards.py: every input layout becomes shards; bad records are left out and named."""

import base64
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dataset.records import open_source
from dataset.shards import ShardSource

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_shards.py"


def encoded(number: int, width: int = 64, height: int = 48, kind: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((width, height)).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def make(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Run the script in this process: (exit status, its output)."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))

    def run(*arguments: str | Path) -> tuple[int, str]:
        import make_shards  # pyright: ignore[reportMissingImports]

        status = make_shards.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    return run


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def shards(folder: Path) -> ShardSource:
    return ShardSource(str(folder / "*.tar"))


def test_json_lines_with_base64_images_keep_their_bytes(tmp_path: Path, make: Any):
    rows = [{"binary": base64.b64encode(encoded(i)).decode(), "desc": f"caption {i}", "url": f"u{i}"} for i in range(5)]
    lines = write_lines(tmp_path / "part.json", rows)
    status, text = make(lines, "--out", tmp_path / "out", "--prefix", "cc", "--caption_key", "desc", "--max_samples", "2", "--workers", "0")
    assert status == 0 and "5 samples in 3 shards" in text and "a second" in text
    source = shards(tmp_path / "out")
    assert [(source[i].image, source[i].annotation) for i in range(5)] == [
        (encoded(i), {"caption": f"caption {i}", "url": f"u{i}"}) for i in range(5)
    ]
    assert not (tmp_path / "out/bad_records.txt").exists()


def test_json_lines_with_image_paths(tmp_path: Path, make: Any):
    (tmp_path / "a.png").write_bytes(encoded(1, kind="PNG"))
    lines = write_lines(tmp_path / "list.jsonl", [{"image": "a.png", "caption": "x"}])
    assert make(lines, "--image_root", tmp_path, "--out", tmp_path / "out", "--workers", "0")[0] == 0
    assert shards(tmp_path / "out")[0].image == encoded(1, kind="PNG")


def test_a_json_list_with_captions_and_elements(tmp_path: Path, make: Any):
    (tmp_path / "a.jpg").write_bytes(encoded(1))
    elements = [{"bb": [1, 2, 10, 10], "caption": "a thing", "attributes": ["red"]}]
    rows = [{"image": "a.jpg", "captions": ["x", "y"]}, {"image": "a.jpg", "elems": elements}]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    assert make(tmp_path / "list.json", "--image_root", tmp_path, "--out", tmp_path / "out", "--workers", "0")[0] == 0
    source = shards(tmp_path / "out")
    assert [source[i].annotation for i in range(2)] == [{"image": "a.jpg", "caption": ["x", "y"]}, {"image": "a.jpg", "elems": elements}]


def test_a_folder_of_images_with_text_beside_them(tmp_path: Path, make: Any):
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    for name in ("b.v1.jpg", "sub/a.png", "c.bmp"):
        (folder / name).write_bytes(encoded(1, kind={"jpg": "JPEG", "png": "PNG", "bmp": "BMP"}[name[-3:]]))
    (folder / "b.v1.txt").write_text("one caption\n\nanother\n")
    (folder / "sub/a.json").write_text('{"caption": "x"}')
    (folder / "c.txt").write_text("converted")
    assert make(folder, "--out", tmp_path / "out", "--workers", "0")[0] == 0
    source = shards(tmp_path / "out")
    assert {record.key: record.annotation["caption"] for record in (source[i] for i in range(3))} == {
        "b_v1": ["one caption", "another"],
        "c": ["converted"],
        "sub_a": "x",
    }
    assert all(Image.open(io.BytesIO(source[i].image or b"")).format in ("JPEG", "PNG") for i in range(3))


def test_resize_shrinks_the_shortest_side_and_the_boxes_along_with_it(tmp_path: Path, make: Any):
    (tmp_path / "a.png").write_bytes(encoded(1, 100, 50, "PNG"))
    (tmp_path / "small.png").write_bytes(encoded(2, 24, 30, "PNG"))
    elements = [{"bb": [20, 10, 50, 30], "caption": "a"}, {"bb": [90, 40, 50, 50], "caption": "reaches out"}]
    rows = [{"image": name, "elems": elements[: 2 if name == "a.png" else 1], "caption": "x"} for name in ("a.png", "small.png")]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    assert make(tmp_path / "list.json", "--image_root", tmp_path, "--out", tmp_path / "out", "--resize", "25", "--workers", "0")[0] == 0
    large, small = (shards(tmp_path / "out")[i] for i in range(2))
    assert Image.open(io.BytesIO(large.image or b"")).size == (50, 25)
    assert [element["bb"] for element in large.annotation["elems"]] == [[10, 5, 25, 15], [45, 20, 5, 5]]
    assert small.image == encoded(2, 24, 30, "PNG")  # never enlarged, and not encoded again
    assert small.annotation["elems"][0]["bb"] == [20, 10, 4, 20]


def bad_rows(folder: Path) -> list[Any]:
    (folder / "good.jpg").write_bytes(encoded(1))
    (folder / "cut.jpg").write_bytes(encoded(2, 256, 256)[:2000])
    outside = [
        {"bb": [100, 100, 5, 5], "caption": "outside"},
        {"bb": [1, 1, 0.5, 9], "caption": "thin"},
        {"bb": "none", "caption": "no box"},
    ]
    good = {"image": "good.jpg", "caption": "x"}
    return [
        good,
        {"image": "cut.jpg", "caption": "x"},
        {"image": "gone.jpg", "caption": "x"},
        {"image": "good.jpg", "caption": "  "},
        {"image": "good.jpg", "caption": "x", "elems": outside},
        {"image": "good.jpg", "elems": [*outside, {"bb": [1, 1, 9, 9], "caption": ""}, {"bb": [1, 1, 9, 9], "caption": "kept"}]},
        "text",
    ]


@pytest.mark.parametrize("workers", ["0", "2"])
def test_bad_records_are_left_out_and_named(tmp_path: Path, make: Any, workers: str):
    (tmp_path / "list.json").write_text(json.dumps(bad_rows(tmp_path)))
    arguments = (tmp_path / "list.json", "--image_root", tmp_path, "--out", tmp_path / "out", "--workers", workers)
    status, text = make(*arguments, "--max_bad", "5")
    assert status == 0 and "2 samples" in text and "1 elements (4 dropped), 5 bad records" in text
    named = (tmp_path / "out/bad_records.txt").read_text().splitlines()
    assert len(named) == 5
    for line, reason in zip(
        named, ("00000001: the image cannot be decoded", "gone.jpg", "caption", "00000004: none of its elements", "a str"), strict=True
    ):
        assert reason in line
    source = shards(tmp_path / "out")
    assert [element["caption"] for element in source[1].annotation["elems"]] == ["kept"]


@pytest.mark.parametrize("max_bad", ["4", "0.7"])
def test_too_many_bad_records_are_an_error(tmp_path: Path, make: Any, max_bad: str):
    (tmp_path / "list.json").write_text(json.dumps(bad_rows(tmp_path)))
    status, text = make(tmp_path / "list.json", "--image_root", tmp_path, "--out", tmp_path / "out", "--workers", "0", "--max_bad", max_bad)
    assert status == 2 and "error: 5 of 7 records are bad" in text and "bad_records.txt" in text
    assert len((tmp_path / "out/bad_records.txt").read_text().splitlines()) == 5


def test_a_wrong_image_root_stops_early(tmp_path: Path, make: Any):
    (tmp_path / "list.json").write_text(json.dumps([{"image": f"{i}.jpg", "caption": "x"} for i in range(500)]))
    status, text = make(tmp_path / "list.json", "--image_root", tmp_path / "gone", "--out", tmp_path / "out", "--workers", "0")
    assert status == 2 and "the first 100 records are all bad" in text and "gone/0.jpg" in text
    assert list((tmp_path / "out").iterdir()) == []


def test_shards_that_are_there_are_not_replaced_unasked(tmp_path: Path, make: Any):
    lines = write_lines(tmp_path / "a.jsonl", [{"binary": base64.b64encode(encoded(i)).decode(), "caption": "x"} for i in range(4)])
    first = (lines, "--out", tmp_path / "out", "--workers", "0")
    assert make(*first, "--max_samples", "1")[0] == 0
    status, text = make(*first)
    assert status == 2 and "--overwrite" in text and len(shards(tmp_path / "out")) == 4
    assert make(*first, "--overwrite")[0] == 0
    assert len(shards(tmp_path / "out")) == 4 and len(list((tmp_path / "out").glob("*.tar"))) == 1


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("gone.jsonl", None, "gone.jsonl: no such file"),
        ("list.json", "[]", "--image_root"),
        ("broken.json", "[1, ", "--image_root"),
        ("empty.jsonl", "", "the input holds no records"),
    ],
)
def test_wrong_input_is_one_clear_line(tmp_path: Path, make: Any, name: str, content: str | None, reason: str):
    if content is not None:
        (tmp_path / name).write_text(content)
    status, text = make(tmp_path / name, "--out", tmp_path / "out", "--workers", "0")
    assert status == 2 and text.startswith("error: ") and reason in text and text.count("\n") == 1


def test_the_script_runs_from_another_folder(tmp_path: Path):
    lines = write_lines(tmp_path / "a.jsonl", [{"binary": base64.b64encode(encoded(1)).decode(), "caption": "x"}])
    command = [sys.executable, str(SCRIPT), lines.name, "--out", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(open_source(str(tmp_path / "out/*.tar"))) == 1


def test_a_folder_of_images_alone_becomes_shards_without_texts(tmp_path: Path, make: Any):
    (tmp_path / "in/n01").mkdir(parents=True)
    for i in range(2):
        (tmp_path / f"in/n01/{i}.jpg").write_bytes(encoded(i))
    assert make(tmp_path / "in", "--out", tmp_path / "out", "--workers", "0")[0] == 2  # nothing says what they show
    status, text = make(tmp_path / "in", "--out", tmp_path / "out", "--workers", "0", "--without_texts")
    assert status == 0 and "2 samples" in text
    source = shards(tmp_path / "out")
    assert [(source[i].image, source[i].annotation) for i in range(2)] == [(encoded(i), {}) for i in range(2)]
