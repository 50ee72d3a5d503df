"""Clips of any layout, and their stream."""

import base64

import numpy as np
import pytest
import torch

from common.errors import BadRecord
from dataset.batches import MixedBatches
from dataset.clips import MUSIC, ClipReader, choose_part, clip_file
from dataset.config import AugmentationConfig, VideoTextStream
from dataset.records import Record, open_source
from dataset.shapeworld_clips import encode_mp4
from dataset.shards import ShardWriter
from dataset.streams.base import TextSide
from dataset.streams.video_text import VideoTexts
from fake_records import Records, encoded, picture, small_tokenizer

PLAIN = AugmentationConfig(crop_scale=None, flip=0.0, rand_augment=False)


def rng(seed=0):
    return np.random.default_rng(seed)


def grey(value: int) -> np.ndarray:
    return np.full((16, 16, 3), value, dtype=np.uint8)


def listed(*values: int) -> list[str]:
    """A frame list of plain grey images."""
    return [base64.b64encode(encoded(grey(value))).decode() for value in values]


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> TextSide:
    return TextSide(small_tokenizer(tmp_path_factory.mktemp("tokenizer")), 24, None)


def stream(text, records, **settings) -> VideoTexts:
    config = VideoTextStream.model_validate({"shards": "unused", "batch_size": 2, "augmentation": PLAIN} | settings)
    return VideoTexts("videos", records, config, text, 16, 3)


def values(sample) -> list[int]:
    return sample.image[:, 0, 0, 0].tolist()


def test_frame_lists_and_video_files_give_batches_of_clips(text, tmp_path):
    with ShardWriter(tmp_path, "clips") as shards:
        shards.write("list", None, {"video_frames": listed(0, 10, 20, 30, 40, 50), "caption": "a red circle"})
        shards.write("file", encode_mp4(np.stack([np.full((32, 32, 3), 25 * k, np.uint8) for k in range(6)])), {"caption": "b"}, "mp4")
        shards.write("broken", b"no video", {"caption": "c"}, "mp4")
    videos = stream(text, open_source([str(tmp_path / "*.tar")], need_image=False))
    assert values(videos.sample(0, rng())) == sorted(values(videos.sample(0, rng())))
    batches = MixedBatches({"videos": videos}, seed=0)
    found = [batches[step]["videos"] for step in range(2)]
    assert all(batch.tensors["image"].shape == (2, 3, 3, 16, 16) for batch in found)
    assert all(batch.tensors["image"].dtype == torch.uint8 for batch in found)
    assert {fault.kind for batch in found for fault in batch.faults} == {"image"}  # the broken one is skipped and counted
    assert "broken: the video cannot be opened" in found[0].faults[0].text if found[0].faults else found[1].faults[0].text


def test_training_takes_a_frame_of_each_segment_and_evaluation_its_first():
    reader = ClipReader(3, 10_000)
    frames = listed(0, 10, 20, 30, 40, 50)
    assert [np.asarray(frame)[0, 0, 0] for frame in reader.images(frames, None)] == [0, 20, 40]
    drawn = {tuple(int(np.asarray(frame)[0, 0, 0]) for frame in reader.images(frames, rng(seed))) for seed in range(30)}
    assert len(drawn) > 3
    assert all(0 <= a < 20 <= b < 40 <= c < 60 for a, b, c in drawn)


def test_frames_change_alike_or_each_by_itself(text):
    still = [base64.b64encode(encoded(picture(1))).decode()] * 5
    records = Records([Record("still", None, {"video_frames": still, "caption": "a"})])
    together = stream(text, records, augmentation=AugmentationConfig()).sample(0, rng(3)).image
    apart = stream(text, records, augmentation=AugmentationConfig(), frame_changes="frame").sample(0, rng(3)).image
    assert all(np.array_equal(frame, together[0]) for frame in together)
    assert not all(np.array_equal(frame, apart[0]) for frame in apart)


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ({"caption": "a"}, "neither a video file nor frames"),
        ({"caption": "a", "video_frames": []}, "not a list of base64 images"),
        ({"caption": "a", "video_frames": ["%"]}, "not base64 text"),
        ({"caption": "a", "video_frames": [base64.b64encode(b"x").decode()]}, "cannot be decoded"),
        ({"caption": ["a"], "video_frames": [listed(0), listed(1)]}, "2 parts and 1 captions"),
        ({"caption": [MUSIC], "video_frames": [listed(0)]}, "no part of the clip has a caption"),
    ],
)
def test_unusable_clips_are_named(text, annotation, reason):
    with pytest.raises(BadRecord, match=f"clip7: .*{reason}"):
        stream(text, Records([Record("clip7", None, annotation)])).sample(0, rng())


def test_parts_that_follow_one_another_are_joined_until_they_are_long_enough():
    parts, captions = [["a"] * 4, ["b"] * 4, ["c"] * 4, ["d"] * 4], ["a", MUSIC, "c", "d"]
    for seed in range(30):
        frames, caption = choose_part(parts, captions, True, 8, rng(seed))
        assert len(frames) >= 8
        assert "b" not in frames  # without a caption
        assert caption.split() == list(dict.fromkeys(frames)) == sorted(set(frames))
    single = {choose_part(parts, captions, False, 8, rng(seed))[1] for seed in range(30)}
    assert single == {"a", "c", "d"}


def test_where_no_list_of_frames_is_the_video_is_taken(tmp_path):
    (tmp_path / "video7.mp4").touch()
    (tmp_path / "abc.avi").touch()
    assert clip_file(tmp_path / "video_7.json") == tmp_path / "video7.mp4"
    assert clip_file(tmp_path / "abc.json") == tmp_path / "abc.avi"
    assert clip_file(tmp_path / "none.json") == tmp_path / "none.json"
