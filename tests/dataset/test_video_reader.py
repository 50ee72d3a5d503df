"""Video files: the same frames by every decoder that is installed, and files that are broken."""

import cv2
import numpy as np
import pytest

from common.errors import BadRecord, UserError
from dataset.shapeworld_clips import encode_mp4
from dataset.video_reader import PACKAGES, installed_decoders, read_video, video_seconds

SIDE = 64


def drawn(count: int) -> np.ndarray:
    """A white disc that goes to the right: uint8 [count, SIDE, SIDE, 3]."""
    frames = np.full((count, SIDE, SIDE, 3), (40, 90, 160), dtype=np.uint8)
    for number, frame in enumerate(frames):
        cv2.circle(frame, (10 + 5 * number, 32), 8, (250, 220, 40), -1)
    return frames


def everything(count: int) -> list[int]:
    return list(range(count))


@pytest.fixture(scope="module")
def clip() -> bytes:
    return encode_mp4(drawn(8))


@pytest.mark.parametrize("decoder", installed_decoders())
def test_every_decoder_gives_the_frames_that_were_drawn(decoder, clip):
    frames = read_video(clip, everything, 10_000, decoder)
    assert [frame.shape for frame in frames] == [(SIDE, SIDE, 3)] * 8
    assert np.abs(np.stack(frames).astype(int) - drawn(8)).mean() < 8  # compression; a frame further or BGR is beyond 9
    reference = read_video(clip, everything, 10_000, "opencv")
    assert np.abs(np.stack(frames).astype(int) - np.stack(reference)).max() <= 3


@pytest.mark.parametrize("decoder", installed_decoders())
def test_the_frames_asked_for_come_in_order(decoder, clip):
    asked = []
    frames = read_video(clip, lambda count: asked.append(count) or [1, 4, 4, 7], 10_000, decoder)
    every = read_video(clip, everything, 10_000, decoder)
    assert asked == [8]
    assert all(np.array_equal(frame, every[number]) for frame, number in zip(frames, (1, 4, 4, 7), strict=True))


@pytest.mark.parametrize("decoder", installed_decoders())
def test_a_file_of_one_frame_is_a_clip(decoder):
    frames = read_video(encode_mp4(drawn(1)), lambda count: [0] * 4 if count == 1 else [], 10_000, decoder)
    assert len(frames) == 4


@pytest.mark.parametrize("decoder", installed_decoders())
@pytest.mark.parametrize("cut", ["empty", "half", "noise"])
def test_a_broken_file_is_a_bad_record(decoder, cut, clip):
    data = {"empty": b"", "half": clip[: len(clip) // 2], "noise": bytes(range(256)) * 8}[cut]
    with pytest.raises(BadRecord, match="video") as caught:
        read_video(data, everything, 10_000, decoder)
    assert caught.value.kind == "image"


def test_a_file_that_ends_before_its_last_frame_is_a_bad_record(clip):
    """The index at the end of the file is whole, the frames are not."""
    start = clip.index(b"mdat") + 4
    end = clip.index(b"moov") - 4
    hollow = clip[: start + (end - start) // 3] + bytes(end - start - (end - start) // 3) + clip[end:]
    with pytest.raises(BadRecord, match="video"):
        read_video(hollow, everything, 10_000, "opencv")


def test_large_frames_and_absent_decoders_are_refused(clip, monkeypatch):
    with pytest.raises(BadRecord, match="64 x 64 pixels, more than max_pixels = 4000"):
        read_video(clip, everything, 4000)
    monkeypatch.setitem(PACKAGES, "torchcodec", "no_such_module")
    with pytest.raises(UserError, match="pip install torchcodec"):
        read_video(clip, everything, 10_000, "torchcodec")


def test_the_length_is_told_in_seconds(clip):
    assert video_seconds(clip) == pytest.approx(2.0)
