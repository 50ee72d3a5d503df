"""Clips: some frames, spread over a video file or a list of images, as one array.

A clip is a file (see dataset/video_reader.py) or a list of base64 images, as in the published JSON files. Several lists in one record are
the parts of a longer video, each with a caption (X2-VLM's layout of HowTo100M and YT-Temporal).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.errors import BadRecord
from dataset.config import AugmentationConfig, Decoding, FrameChanges, VideoDecoder
from dataset.remote import reason
from dataset.shard_index import VIDEO_EXTENSIONS
from dataset.storage import Storage
from dataset.text import caption_texts
from dataset.transforms import Picture, augment_image, decode_image, open_picture, read_picture, squash
from dataset.video import sample_frame_ids
from dataset.video_reader import read_video

MUSIC = "[Music]"
"""What transcripts have where nobody speaks: no caption."""


@dataclass(frozen=True)
class ClipReader:
    """Reads clips as a number of frames.

    Raises, by all its methods:
        BadRecord: the clip cannot be read; names what is wrong.
    """

    frames: int
    """How many frames are chosen."""
    max_pixels: int
    """Larger frames are refused."""
    decoder: VideoDecoder = "auto"
    decoding: Decoding = "exact"
    """Of frames that are JPEG files."""

    def video(self, data: bytes, rng: np.random.Generator | None) -> list[Picture]:
        """Frames of a video file; `rng` is None for evaluation."""
        chosen = read_video(data, lambda count: sample_frame_ids(count, self.frames, rng), self.max_pixels, self.decoder)
        return [Image.fromarray(frame) for frame in chosen]

    def images(self, encoded: Any, rng: np.random.Generator | None) -> list[Picture]:
        """Frames of a list of base64 images."""
        if not isinstance(encoded, list) or not encoded:
            raise BadRecord("the clip is not a list of base64 images", "image")
        chosen = sample_frame_ids(len(encoded), self.frames, rng)
        try:
            files = {index: base64.b64decode(encoded[index], validate=True) for index in chosen}
        except (binascii.Error, TypeError, ValueError) as error:
            raise BadRecord(f"a frame of the clip is not base64 text ({error})", "image") from error
        opened = {index: open_picture(data, self.max_pixels, self.decoding) for index, data in files.items()}
        return [opened[index] for index in chosen]

    def file(self, path: Path, rng: np.random.Generator | None) -> list[Picture]:
        """Frames of a video file, of a JSON list of base64 images, or of one image, which is then shown in all frames."""
        path = clip_file(path)
        try:
            data = Storage().read_whole(path)
            if path.suffix[1:].lower() in VIDEO_EXTENSIONS:
                return self.video(data, rng)
            if path.suffix == ".json":
                return self.images(json.loads(data), rng)
            return [open_picture(data, self.max_pixels, self.decoding)] * self.frames
        except OSError as error:
            raise BadRecord(f"the clip {path} cannot be read ({reason(error)})", "image") from error
        except ValueError as error:
            raise BadRecord(f"the clip {path} cannot be read ({error})", "image") from error
        except BadRecord as error:
            raise BadRecord(f"the clip {path}: {error}", error.kind) from error


def is_clip(path: Path) -> bool:
    """Whether a file holds a clip, told by its ending."""
    return path.suffix == ".json" or path.suffix[1:].lower() in VIDEO_EXTENSIONS


def read_still(path: Path, max_pixels: int, decoding: Decoding) -> Picture:
    """An image file that is to be augmented. Raises BadRecord, also for a clip."""
    if is_clip(path):
        raise BadRecord(f"{path} holds a clip, but model.vision.frames is not set", "image")
    return read_picture(path, max_pixels, decoding)


def clip_file(path: Path) -> Path:
    """Where the published layouts expect a list of frames, the list, or else the video that it is made from: video7.mp4 for
    video_7.json, NAME.avi for NAME.json."""
    if path.suffix != ".json" or path.exists():
        return path
    names = (f"{stem}.{ending}" for stem in (path.stem, path.stem.replace("_", "")) for ending in sorted(VIDEO_EXTENSIONS))
    return next((path.with_name(name) for name in names if path.with_name(name).exists()), path)


def squash_clip(frames: Sequence[Picture], size: int) -> np.ndarray:
    """Frames for evaluation, each resized to a square: uint8 [F, size, size, 3]."""
    return np.stack([squash(_pixels(frame), size) for frame in frames])


def augment_clip(
    frames: Sequence[Picture],
    size: int,
    config: AugmentationConfig,
    changes: FrameChanges,
    rng: np.random.Generator,
    may_flip: bool = True,
) -> np.ndarray:
    """The training transform of a clip.

    Args:
        frames: of the clip.
        size: side of the result in pixels.
        config: which steps take place.
        changes: clip: every frame is cropped, mirrored and changed alike; frame: each by itself.
        rng: the sample's generator.
        may_flip: False where mirroring would make the caption wrong.

    Returns:
        uint8 [F, size, size, 3].
    """
    seed = rng.integers(2**63)
    generators = [np.random.default_rng(seed) if changes == "clip" else rng for _ in frames]
    return np.stack([augment_image(frame, size, config, generator, may_flip) for frame, generator in zip(frames, generators, strict=True)])


def choose_part(parts: Any, captions: Any, continuous: bool, least: int, rng: np.random.Generator) -> tuple[list[Any], str]:
    """One clip out of a record's parts (X2-VLM's code; its section 4.1 names the data sets).

    Args:
        parts: lists of frames, one a part.
        captions: one a part.
        continuous: whether the parts follow one another. Then neighbours are joined, starting from a part drawn at random and growing
            to a side drawn at random, until they have `least` frames; parts without a caption are left out and do not count.
        least: frames.
        rng: the sample's generator.

    Returns:
        Frames, and the caption.

    Raises:
        BadRecord: no part has a caption, or the numbers of parts and captions differ.
    """
    texts = caption_texts(captions)
    if not isinstance(parts, list) or len(texts) != len(parts):
        raise BadRecord(f"the record has {len(parts)} parts and {len(texts)} captions")
    told = [number for number, text in enumerate(texts) if text.strip() and text.strip() != MUSIC and parts[number]]
    if not told:
        raise BadRecord("no part of the clip has a caption")
    if not continuous:
        number = told[int(rng.integers(len(told)))]
        return parts[number], texts[number]
    first = last = int(rng.integers(len(parts)))
    while sum(len(parts[number]) for number in told if first <= number <= last) < least and (first > 0 or last < len(parts) - 1):
        left = first > 0 and (last == len(parts) - 1 or rng.random() < 0.5)
        first, last = (first - 1, last) if left else (first, last + 1)
    joined = [number for number in told if first <= number <= last]
    if not joined:  # the least is too low to reach a part with a caption
        joined = [min(told, key=lambda number: abs(number - first))]
    return [frame for number in joined for frame in parts[number]], " ".join(texts[number] for number in joined)


def _pixels(frame: Picture) -> Image.Image:
    return frame if isinstance(frame, Image.Image) else decode_image(frame.data, frame.width * frame.height)
