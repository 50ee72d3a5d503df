"""Fast decoding against exact decoding."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from common.errors import BadRecord
from dataset.config import AugmentationConfig, BoxAugmentationConfig
from dataset.jpeg import EncodedJpeg, reduction
from dataset.transforms import augment_image, augment_with_box, decode_image, open_picture, squash
from fake_records import encoded, picture

COCO_MINI = Path(__file__).parents[2].parent / "shared" / "data" / "coco_mini"
MANY = 64_000_000
PLAIN = AugmentationConfig(rand_augment=False)


def photograph(width: int, height: int, seed: int = 0) -> bytes:
    """A JPEG file of smooth colours, as photographs have at some distance."""
    noise = np.random.default_rng(seed).integers(0, 256, (1 + 16 * height // width, 1 + 16 * width // height, 3), dtype=np.uint8)
    pixels = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def both_ways(data: bytes, side: int, seed: int) -> list[np.ndarray]:
    ways = (open_picture(data, MANY, "fast"), open_picture(data, MANY, "exact"))
    return [augment_image(way, side, PLAIN, np.random.default_rng(seed)).astype(int) for way in ways]


@pytest.mark.parametrize(("width", "height", "side"), [(640, 480, 224), (300, 200, 224), (1600, 1200, 96), (1201, 403, 64), (97, 801, 32)])
def test_fast_decoding_gives_nearly_the_exact_pixels_at_every_scale(width, height, side):
    data = photograph(width, height)
    for seed in range(4):
        fast, exact = both_ways(data, side, seed)
        assert fast.shape == exact.shape == (side, side, 3)
        a_pixel_off = max(np.abs(np.diff(exact, axis=axis)).mean() for axis in (0, 1))
        assert np.abs(fast - exact).mean() < a_pixel_off / 4


@pytest.mark.skipif(not COCO_MINI.exists(), reason="real photographs lie beside the project only where it is developed")
def test_fast_decoding_of_real_photographs_differs_by_about_a_grey_level():
    files = sorted((COCO_MINI / "val2017").glob("*.jpg"))[:24]
    differences = [np.abs(np.subtract(*both_ways(file.read_bytes(), 224, seed))).mean() for seed, file in enumerate(files)]
    assert np.mean(differences) < 2
    assert max(differences) < 8


def test_fast_decoding_never_has_less_than_the_needed_resolution():
    for crop, side, expected in (
        ((0, 0, 448, 448), 224, 2),
        ((0, 0, 447, 900), 224, 1),
        ((5, 5, 901, 901), 224, 4),
        ((0, 0, 9000, 9000), 224, 8),
        ((0, 0, 10, 10), 224, 1),
    ):
        assert reduction(crop, side) == expected


def test_detail_that_the_output_can_show_survives_reduced_decoding():
    stripes = np.zeros((1024, 1024, 3), dtype=np.uint8)
    stripes[:, (np.arange(1024) // 16) % 2 == 1] = 255
    result = augment_image(open_picture(encoded(stripes, "JPEG"), MANY, "fast"), 128, whole(), np.random.default_rng(0))
    assert (result[:, 1::4].astype(int) - result[:, 3::4]).__abs__().min() > 200  # a stripe is two pixels of the result


def whole() -> AugmentationConfig:
    return AugmentationConfig(crop_scale=None, flip=0.0, rand_augment=False)


def test_crops_flips_and_later_draws_are_the_same_in_both_modes():
    data = photograph(320, 240)
    config, box = BoxAugmentationConfig(rand_augment=True), (100.0, 80.0, 60.0, 50.0)
    for seed in range(12):
        placements, draws = [], []
        for mode in ("fast", "exact"):
            rng = np.random.default_rng(seed)
            _, placement = augment_with_box(open_picture(data, MANY, mode), box, 64, config, rng)
            placements.append((placement, placement.place(box, 0.5)))
            draws.append(rng.random())
        assert placements[0] == placements[1]
        assert draws[0] == draws[1]


def test_boxes_lie_on_their_pixels_after_reduced_decoding():
    pixels = np.zeros((960, 1280, 3), dtype=np.uint8)
    pixels[320:640, 480:800] = 255
    box = (480, 320, 320, 320)
    data = encoded(pixels, "JPEG")
    for seed in range(8):
        config = BoxAugmentationConfig(rand_augment=False)
        result, placement = augment_with_box(open_picture(data, MANY, "fast"), box, 96, config, np.random.default_rng(seed))
        x, y, w, h = placement.place(box, 0.5) or (0, 0, 0, 0)
        rows, columns = np.nonzero(result[..., 0] > 127)
        assert np.allclose([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], [x, y, x + w, y + h], atol=1)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_four_colour_files_look_as_in_exact_mode(mode):
    image = Image.open(io.BytesIO(photograph(128, 96))).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    fast, exact = both_ways(buffer.getvalue(), 48, 0)
    assert np.abs(fast - exact).mean() < 2


def test_rotation_marks_are_ignored_in_both_modes():
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.open(io.BytesIO(photograph(128, 96))).save(buffer, "JPEG", quality=95, exif=exif)
    picture = open_picture(buffer.getvalue(), MANY, "fast")
    assert isinstance(picture, EncodedJpeg)
    assert picture.size == (128, 96)
    fast, exact = both_ways(buffer.getvalue(), 48, 0)
    assert np.abs(fast - exact).mean() < 2


def test_other_formats_are_decoded_exactly_in_fast_mode():
    for kind in ("PNG", "WEBP", "BMP"):
        fast, exact = both_ways(encoded(picture(1), kind), 32, 0)
        assert (fast == exact).all()


def test_what_exact_mode_refuses_fast_mode_refuses_too():
    data = photograph(128, 96)
    bent = bytearray(data)
    bent[bent.index(b"\xff\xc0") + 4] = 77  # a precision that no decoder has
    for broken in (b"", b"\xff\xd8\xff", data[: len(data) // 2], data[:40] + b"\xff\xd9", bytes(bent)):
        for mode in ("fast", "exact"):
            with pytest.raises(BadRecord, match="cannot be decoded"):
                augment_image(open_picture(broken, MANY, mode), 32, PLAIN, np.random.default_rng(0))


def test_what_opencv_gives_up_on_is_left_to_pillow(monkeypatch):
    data = photograph(128, 96)
    monkeypatch.setattr(cv2, "imdecode", lambda data, flags: None)
    pixels = augment_image(open_picture(data, MANY, "fast"), 32, whole(), np.random.default_rng(0))
    assert (pixels == squash(decode_image(data), 32)).all()


def test_too_many_pixels_are_refused_before_decoding_in_fast_mode(monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda data, flags: pytest.fail("decoded"))
    with pytest.raises(BadRecord, match="max_pixels = 100"):
        open_picture(photograph(128, 96), 100, "fast")
