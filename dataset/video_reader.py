"""Frames of video files, by whichever decoding library is installed.

PyAV comes with `pip install "multigrain[video]"`, torchcodec and decord by themselves; OpenCV is always there. For one file they give the
same frames up to rounding in the conversion of colours.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from common.errors import BadRecord, UserError
from dataset.config import VideoDecoder

Choose = Callable[[int], Sequence[int]]
"""From the number of frames to the numbers of those that are wanted, rising."""
Decoder = Literal["torchcodec", "av", "opencv", "decord"]
PACKAGES: dict[Decoder, str] = {"torchcodec": "torchcodec", "av": "av", "opencv": "cv2", "decord": "decord"}
"""Module of each decoder, the preferred first. decord is taken only where it is asked for: it refuses some widths."""


def installed_decoders() -> list[Decoder]:
    """Those that can be used here, the preferred first."""
    return [name for name, module in PACKAGES.items() if find_spec(module) is not None]


def read_video(data: bytes, choose: Choose, max_pixels: int, decoder: VideoDecoder = "auto") -> list[np.ndarray]:
    """Decode the chosen frames of a video file.

    Args:
        data: the file.
        choose: says which frames; asked once the number of frames is known.
        max_pixels: videos with larger frames are refused.
        decoder: the library; auto: the preferred one of those that are installed.

    Returns:
        Frames uint8 [H, W, 3], RGB, in the order asked for.

    Raises:
        BadRecord: the file is empty, cut short, has no frames, or cannot be decoded.
        UserError: the library is not installed.
    """
    name: Decoder = installed_decoders()[0] if decoder == "auto" else decoder
    if find_spec(PACKAGES[name]) is None:
        raise UserError(f"decoder: {name} is not installed: pip install {name}, or set it to auto.")
    if not data:
        raise BadRecord("the video is an empty file", "image")
    try:
        return _READERS[name](data, choose, max_pixels)
    except (BadRecord, UserError):
        raise
    except Exception as error:  # broken files make decoders raise nearly anything
        text = (str(error) or type(error).__name__).splitlines()[0]
        raise BadRecord(f"the video cannot be decoded by {name} ({text})", "image") from error


def video_seconds(data: bytes) -> float:
    """Length of a video in seconds, as OpenCV reads it; 0 where the file does not say.

    Raises:
        BadRecord: the file cannot be opened.
    """
    with _opencv_capture(data) as capture:
        rate = capture.get(cv2.CAP_PROP_FPS)
        return max(0.0, capture.get(cv2.CAP_PROP_FRAME_COUNT) / rate) if rate > 0 else 0.0


def _by_opencv(data: bytes, choose: Choose, max_pixels: int) -> list[np.ndarray]:
    with _opencv_capture(data) as capture:
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        size = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        return _picked(_opencv_frames(capture), count, size, choose, max_pixels)


@contextmanager
def _opencv_capture(data: bytes) -> Iterator[cv2.VideoCapture]:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what is wrong with a file is said in our own words
    with _as_file(data) as path:
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        try:
            if not capture.isOpened():
                raise BadRecord("the video cannot be opened: it is cut short or no video", "image")
            capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)  # as the other libraries: rotation marks are ignored
            yield capture
        finally:
            capture.release()


def _opencv_frames(capture: cv2.VideoCapture) -> Iterator[Callable[[], np.ndarray]]:
    def fetch() -> np.ndarray:
        done, frame = capture.retrieve()
        if not done:
            raise BadRecord("a frame of the video cannot be decoded", "image")
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)

    while capture.grab():
        yield fetch


def _by_av(data: bytes, choose: Choose, max_pixels: int) -> list[np.ndarray]:
    import av  # pyright: ignore[reportMissingImports]

    with av.open(io.BytesIO(data)) as container:
        if not container.streams.video:
            raise BadRecord("the file holds no video", "image")
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1  # loader workers are the parallelism

        def frames() -> Iterator[Callable[[], np.ndarray]]:
            for frame in container.decode(stream):
                yield lambda frame=frame: frame.to_ndarray(format="rgb24")

        size = stream.codec_context.width, stream.codec_context.height
        return _picked(frames(), stream.frames, size, choose, max_pixels)


def _by_decord(data: bytes, choose: Choose, max_pixels: int) -> list[np.ndarray]:
    import decord  # pyright: ignore[reportMissingImports]

    reader = decord.VideoReader(io.BytesIO(data), num_threads=1)
    if len(reader) == 0:
        raise BadRecord("the video has no frames", "image")
    height, width, _ = reader[0].shape
    _refuse_large((width, height), max_pixels)
    wanted = list(choose(len(reader)))
    return list(reader.get_batch(wanted).asnumpy())


def _by_torchcodec(data: bytes, choose: Choose, max_pixels: int) -> list[np.ndarray]:
    from torchcodec.decoders import VideoDecoder as Decoding  # pyright: ignore[reportMissingImports]

    decoding = Decoding(data, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
    metadata = decoding.metadata
    _refuse_large((metadata.width, metadata.height), max_pixels)
    if len(decoding) == 0:
        raise BadRecord("the video has no frames", "image")
    return list(decoding.get_frames_at(indices=list(choose(len(decoding)))).data.numpy())


_READERS = {"torchcodec": _by_torchcodec, "av": _by_av, "decord": _by_decord, "opencv": _by_opencv}


def _picked(
    frames: Iterator[Callable[[], np.ndarray]], count: int, size: tuple[int, int], choose: Choose, max_pixels: int
) -> list[np.ndarray]:
    """The chosen ones of decoded frames, each converted only if it is wanted; `count` as the file says it, at most 0 where it does not."""
    _refuse_large(size, max_pixels)
    if count <= 0:  # nobody knows but who has decoded all
        every = [fetch() for fetch in frames]
        if not every:
            raise BadRecord("the video has no frames", "image")
        return [every[number] for number in choose(len(every))]
    wanted = list(choose(count))
    found: dict[int, np.ndarray] = {}
    last = max(wanted)
    for number, fetch in enumerate(frames):
        if number in wanted:
            found[number] = fetch()
        if number == last:
            return [found[number] for number in wanted]
    raise BadRecord(f"the video ends before frame {last} of {count}: it is cut short", "image")


def _refuse_large(size: tuple[int, int], max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise BadRecord(f"the video has frames of {size[0]} x {size[1]} pixels, more than max_pixels = {max_pixels}", "image")


@contextmanager
def _as_file(data: bytes) -> Iterator[Path]:
    """The data as a file in memory, where the system has such a place."""
    memory = "/dev/shm"
    with tempfile.NamedTemporaryFile(dir=memory if os.access(memory, os.W_OK) else None, prefix="multigrain-", suffix=".video") as file:
        file.write(data)
        file.flush()
        yield Path(file.name)
