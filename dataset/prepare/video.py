"""A folder of videos with captions to shards of the `video_text` stream, each clip as a list of JPEG frames.

    ROOT/**/NAME.mp4 (or another video ending) with NAME.txt (a caption a line) or NAME.json beside it: {"caption": text or texts}, or
        {"clips": [{"start": seconds, "end": seconds, "caption": text}]} for the parts of a longer video

    OUT/shards/videos-*.tar, OUT/tokenizer/, OUT/bad_records.txt (if there are any), OUT/meta.json (request, counts, SHA-256 of each file)

Frames are spread evenly over a clip. Training then decodes the few that it draws, where a video file has to be decoded up to them.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.errors import BadRecord, UserError
from dataset.config import VideoDecoder
from dataset.prepare.output import PreparedFolder
from dataset.prepare.pack import write_bad_records
from dataset.prepare.raw import text_beside
from dataset.prepare.tokenizer import provide_tokenizer
from dataset.shard_index import VIDEO_EXTENSIONS
from dataset.shards import ShardWriter
from dataset.text import caption_texts
from dataset.transforms import MAX_PIXELS
from dataset.video_reader import read_video, video_seconds

ENTRIES = ("shards", "tokenizer", "bad_records.txt")
BAD_RECORDS = "bad_records.txt"
VERSION = 1  # raise it when the same input comes to give other output


@dataclass(frozen=True)
class VideoRequest:
    """What is asked of `prepare_video`.

    Attributes:
        root: the folder of videos.
        out: folder to write; what it holds of an earlier request is replaced only with `overwrite`.
        fps: frames of a second that are kept.
        max_frames: most frames of a clip; longer clips keep fewer a second.
        resize: frames with a larger shortest side are shrunk to this many pixels; None keeps all.
        quality: of the JPEG frames, 1 to 95.
        max_samples: clips a shard.
        decoder: the library that decodes.
        vocab: folder of a BertTokenizer to take over; None trains one on the captions.
        vocab_size: upper bound of the entries of a trained vocabulary.
        max_bad: how many videos may be bad, or, as a float, which share.
        overwrite: replace what another request wrote.
    """

    root: Path
    out: Path
    fps: float = 2.0
    max_frames: int = 32
    resize: int | None = None
    quality: int = 90
    max_samples: int = 1000
    decoder: VideoDecoder = "auto"
    vocab: Path | None = None
    vocab_size: int = 10_000
    max_bad: int | float = 0.01
    overwrite: bool = False


@dataclass(frozen=True)
class Part:
    """A stretch of a video with its captions; the end is infinite where it goes to the end."""

    start: float
    end: float
    captions: list[str]


def prepare_video(request: VideoRequest, progress: Callable[[str], Callable[[int, int], None]] | None = None) -> dict[str, Any]:
    """Write the prepared data set, or do nothing where the same request has been carried out already.

    Returns:
        The content of meta.json.

    Raises:
        UserError: there are no videos, too many are bad, or OUT holds something else.
    """
    videos = sorted(path for path in request.root.rglob("*") if path.suffix[1:].lower() in VIDEO_EXTENSIONS and path.is_file())
    if not videos:
        raise UserError(f"{request.root}: holds no videos ({', '.join(sorted(VIDEO_EXTENSIONS))})")
    asked = _as_json(request) | {"input": _fingerprint(videos)}
    folder = PreparedFolder(request.out, ENTRIES)
    if (meta := folder.completed(asked)) is not None:
        return meta
    folder.check_free(request.overwrite)
    report = progress("videos") if progress is not None else lambda done, total: None
    texts: list[str] = []
    bad: list[str] = []
    with folder as working:
        with ShardWriter(working / "shards", "videos", request.max_samples) as shards:
            for done, video in enumerate(videos, 1):
                try:
                    for part, frames in _clips(video, request):
                        shards.write(f"{shards.samples:08d}", None, {"video_frames": frames, "caption": part.captions, "video": video.name})
                        texts += part.captions
                except BadRecord as error:
                    bad.append(f"{video}: {error}")
                report(done, len(videos))
        write_bad_records(working / BAD_RECORDS, bad, len(videos), request.max_bad)
        if shards.samples == 0:
            raise UserError(f"{request.root}: none of {len(videos)} videos can be used, the first because: {bad[0]}")
        provide_tokenizer(working / "tokenizer", texts, request.vocab, request.vocab_size)
        counts = {"videos": len(videos), "clips": shards.samples, "shards": len(shards.shards), "bad_records": len(bad)}
        return folder.finish({"request": asked, "counts": counts})


def _clips(video: Path, request: VideoRequest) -> Iterator[tuple[Part, list[str]]]:
    """The parts of a video with their frames in base64. Raises BadRecord."""
    parts = _parts(text_beside(video))
    data = video.read_bytes()
    seconds = video_seconds(data)
    for part in parts:
        frames = read_video(data, _choice(part, seconds, request), MAX_PIXELS, request.decoder)
        yield part, [base64.b64encode(_jpeg(frame, request)).decode() for frame in frames]


def _parts(annotation: dict[str, Any]) -> list[Part]:
    """What an annotation says about a video. Raises BadRecord."""
    clips = annotation.get("clips")
    if clips is None:
        clips = [{"start": 0.0, "end": math.inf, "caption": annotation.get("caption")}]
    parts = []
    for number, clip in enumerate(clips if isinstance(clips, list) else []):
        try:
            start, end = float(clip["start"]), float(clip["end"])
            captions = [text.strip() for text in caption_texts(clip["caption"]) if text.strip()]
        except (KeyError, TypeError, ValueError) as error:
            raise BadRecord(f"clip {number} has no start, end or caption ({error})") from error
        if not captions or not 0 <= start < end:
            raise BadRecord(f"clip {number} has no caption" if not captions else f"clip {number} goes from {start:g} to {end:g} seconds")
        parts.append(Part(start, end, captions))
    if not parts:
        raise BadRecord("the annotation has neither a caption nor clips")
    return parts


def _choice(part: Part, seconds: float, request: VideoRequest) -> Callable[[int], list[int]]:
    """Which of a video's frames stand for a part of it."""

    def choose(count: int) -> list[int]:
        rate = count / seconds if seconds > 0 else request.fps
        first = min(math.floor(part.start * rate), count)
        last = count if math.isinf(part.end) else min(math.ceil(part.end * rate), count)
        if first >= last:
            raise BadRecord(f"a clip begins at {part.start:g} s of a video of {seconds:.1f} s")
        wanted = min(max(1, round((last - first) / rate * request.fps)), request.max_frames, last - first)
        return (first + np.floor((np.arange(wanted) + 0.5) * (last - first) / wanted)).astype(int).tolist()

    return choose


def _jpeg(frame: np.ndarray, request: VideoRequest) -> bytes:
    image = Image.fromarray(frame)
    shortest = min(image.size)
    if request.resize is not None and shortest > request.resize:
        size = round(image.width * request.resize / shortest), round(image.height * request.resize / shortest)
        image = image.resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=request.quality)
    return buffer.getvalue()


def _as_json(request: VideoRequest) -> dict[str, Any]:
    """The request as meta.json keeps it: what changes the outcome."""
    left_out = ("out", "overwrite", "max_bad")
    values = {name: value for name, value in asdict(request).items() if name not in left_out}
    return json.loads(json.dumps({"layout": "video", "version": VERSION, **values}, default=str))


def _fingerprint(videos: list[Path]) -> str:
    """Names, sizes and times of the videos and of what stands beside them."""
    digest = hashlib.sha256()
    for video in videos:
        for file in (video, video.with_suffix(".txt"), video.with_suffix(".json")):
            if file.exists():
                state = file.stat()
                digest.update(f"{file} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()
