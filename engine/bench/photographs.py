"""Records that look like COCO's to a loader: photographs of 640 x 480 pixels and some 160 kB, five captions, seven boxes."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from dataset.records import Record

WIDTH, HEIGHT = 640, 480
QUALITY = 95
GRAIN = 12
"""Grey levels by which single pixels differ: with the quality it gives files of the size of COCO's."""
WORDS = (
    "a the two some man woman dog cat horse bus car bench tree street table plate red green small large old wooden standing sitting "
    "holding riding near under behind beside on with"
)


def photograph_records(count: int, seed: int) -> list[Record]:
    """Records with both captions of the image and described boxes, different from one another."""
    return [_record(number, np.random.default_rng([seed, number])) for number in range(count)]


def _record(number: int, rng: np.random.Generator) -> Record:
    data = cv2.imencode(".jpg", _photograph(rng), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
    captions = [_phrase(rng, 9, 14) for _ in range(5)]
    return Record(f"{number:06d}", data, {"caption": captions, "elems": [_element(rng) for _ in range(7)]})


def _photograph(rng: np.random.Generator) -> np.ndarray:
    """Noise whose strength falls with its frequency, as in natural images: uint8 [HEIGHT, WIDTH, 3]."""
    image = rng.integers(128 - GRAIN, 128 + GRAIN, (HEIGHT, WIDTH, 1), dtype=np.uint8).astype(np.float32).repeat(3, axis=2)
    for octave in range(7):
        side = 5 << octave
        noise = rng.standard_normal((side * 3 // 4 + 1, side, 1), dtype=np.float32)
        noise = noise + 0.3 * rng.standard_normal((side * 3 // 4 + 1, side, 3), dtype=np.float32)
        image += cv2.resize(noise * np.float32(48.0 * 0.65**octave), (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    return np.clip(image, 0, 255).astype(np.uint8)


def _element(rng: np.random.Generator) -> dict[str, Any]:
    w, h = (int(side) for side in rng.integers(20, (WIDTH // 2, HEIGHT // 2)))
    x, y = int(rng.integers(WIDTH - w)), int(rng.integers(HEIGHT - h))
    return {"bb": [x, y, w, h], "caption": _phrase(rng, 2, 6)}


def _phrase(rng: np.random.Generator, low: int, high: int) -> str:
    return " ".join(rng.choice(WORDS.split(), size=int(rng.integers(low, high))).tolist())
