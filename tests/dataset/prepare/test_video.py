"""A folder of videos to shards, and MSR-VTT's lists."""

import json

import numpy as np
import pytest

from common.errors import UserError
from dataset.clips import ClipReader
from dataset.prepare.msrvtt import MsrvttRequest, prepare_msrvtt
from dataset.prepare.video import VideoRequest, prepare_video
from dataset.records import open_source
from dataset.shapeworld_clips import encode_mp4


@pytest.fixture
def videos(tmp_path):
    """Two seconds of rising grey, 4 frames a second."""
    root = tmp_path / "videos"
    (root / "more").mkdir(parents=True)
    file = encode_mp4(np.stack([np.full((64, 96, 3), 30 * number, np.uint8) for number in range(8)]))
    (root / "a.mp4").write_bytes(file)
    (root / "a.txt").write_text("a red circle\nthe circle\n")
    (root / "more/b.mp4").write_bytes(file)
    parts = [{"start": 0, "end": 1, "caption": "dark"}, {"start": 1, "end": 9, "caption": ["light", "bright"]}]
    (root / "more/b.json").write_text(json.dumps({"clips": parts}))
    return root


def greys(record) -> list[int]:
    frames = ClipReader(len(record.annotation["video_frames"]), 10_000).images(record.annotation["video_frames"], None)
    return [round(float(np.asarray(frame).mean()) / 30) for frame in frames]


def test_videos_and_parts_of_them_become_clips(videos, tmp_path):
    request = VideoRequest(videos, tmp_path / "out", fps=2, resize=32, vocab_size=200)
    meta = prepare_video(request)
    assert meta["counts"] == {"videos": 2, "clips": 3, "shards": 1, "bad_records": 0}
    source = open_source([str(tmp_path / "out/shards/*.tar")], need_image=False)
    records = [source[number] for number in range(3)]
    assert [record.annotation["caption"] for record in records] == [["a red circle", "the circle"], ["dark"], ["light", "bright"]]
    assert [greys(record) for record in records] == [[1, 3, 5, 7], [1, 3], [5, 7]]
    shapes = {np.asarray(ClipReader(1, 10_000).images(record.annotation["video_frames"], None)[0]).shape for record in records}
    assert shapes == {(32, 48, 3)}
    assert prepare_video(request) == meta
    (videos / "a.txt").write_text("another\n")
    with pytest.raises(UserError, match="add --overwrite"):
        prepare_video(request)


def test_bad_videos_are_listed_and_too_many_refused(videos, tmp_path):
    (videos / "cut.mp4").write_bytes((videos / "a.mp4").read_bytes()[:300])
    (videos / "cut.txt").write_text("a\n")
    (videos / "silent.mp4").write_bytes((videos / "a.mp4").read_bytes())
    request = VideoRequest(videos, tmp_path / "out", vocab_size=200, max_bad=2)
    assert prepare_video(request)["counts"]["bad_records"] == 2
    listed = (tmp_path / "out/bad_records.txt").read_text()
    assert "cut.mp4: the video cannot be opened" in listed
    assert "silent.mp4: " in listed
    with pytest.raises(UserError, match="more than max_bad=1"):
        prepare_video(VideoRequest(videos, tmp_path / "other", vocab_size=200, max_bad=1))
    with pytest.raises(UserError, match="holds no videos"):
        prepare_video(VideoRequest(tmp_path / "out", tmp_path / "x"))


def test_msrvtt_lists_hold_out_clips_of_training_for_validation(tmp_path):
    sentences = [{"video_id": f"video{number}", "caption": f"caption {number} {part}"} for number in range(24) for part in "ab"]
    (tmp_path / "MSRVTT_data.json").write_text(json.dumps({"videos": [], "sentences": sentences}))
    (tmp_path / "MSRVTT_train.9k.csv").write_text("video_id\n" + "".join(f"video{number}\n" for number in range(20)))
    rows = "".join(f"ret{number},msr{number},video{number},a test {number}\n" for number in range(20, 24))
    (tmp_path / "MSRVTT_JSFUSION_test.csv").write_text("key,vid_key,video_id,sentence\n" + rows)
    meta = prepare_msrvtt(MsrvttRequest(tmp_path, tmp_path / "out"))
    assert meta["counts"] == {"training_pairs": 36, "validation_clips": 2, "test_clips": 4}
    lists = {split: json.loads((tmp_path / f"out/msrvtt_{split}.json").read_text()) for split in ("train", "val", "test")}
    assert lists["train"][0] == {"image": "video0.mp4", "caption": "caption 0 a", "image_id": "video0"}
    assert lists["test"][0] == {"image": "video20.mp4", "caption": ["a test 20"]}
    assert len({record["image"] for split in lists.values() for record in split}) == 24
    assert not {record["image"] for record in lists["val"]} & {record["image"] for record in lists["train"]}
    (tmp_path / "MSRVTT_train.9k.csv").write_text("id\n1\n")
    with pytest.raises(UserError, match=r"MSRVTT_train\.9k\.csv: has no column video_id"):
        prepare_msrvtt(MsrvttRequest(tmp_path, tmp_path / "other"))
