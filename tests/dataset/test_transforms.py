"""Decoding and augmentation."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from common.errors import BadRecord
from dataset.config import AugmentationConfig, BoxAugmentationConfig
from dataset.rand_augment import (
    BOX_OPERATIONS,
    ENHANCE,
    FILL,
    IMAGE_OPERATIONS,
    auto_contrast,
    brightness,
    equalize,
    rand_augment,
    sharpness,
    translate_x,
    translate_y,
)
from dataset.transforms import augment_image, augment_with_box, decode_image, random_crop, read_image, squash
from fake_records import encoded, picture

OFF = AugmentationConfig(crop_scale=None, flip=0.0, rand_augment=False)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "CMYK", "1", "I;16"])
def test_every_colour_mode_becomes_rgb(mode):
    image = Image.fromarray(picture(0))
    if mode == "I;16":
        image = Image.fromarray(np.full((48, 64), 200 << 8, dtype=np.uint16))
    elif mode != "RGB":
        image = image.convert(mode)
    kind = "JPEG" if mode == "CMYK" else "PNG"
    buffer = io.BytesIO()
    image.save(buffer, kind)
    decoded = decode_image(buffer.getvalue())
    assert decoded.mode == "RGB"
    assert decoded.size == (64, 48)
    if mode == "I;16":
        assert np.asarray(decoded).min() == np.asarray(decoded).max() == 200


def test_undecodable_bytes_name_the_reason(tmp_path):
    data = encoded(picture(0))
    for broken in (b"", b"not an image", data[: len(data) // 2], b"%!PS-Adobe-3.0 EPSF-3.0\n"):
        with pytest.raises(BadRecord, match="cannot be decoded"):
            decode_image(broken)
    with pytest.raises(BadRecord, match=r"nowhere.png cannot be read"):
        read_image(tmp_path / "nowhere.png")


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch):
    data = encoded(picture(0))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(BadRecord, match="max_pixels = 100"):
        decode_image(data, max_pixels=100)


def test_everything_off_is_a_plain_squash():
    image = Image.fromarray(picture(3))
    pixels = augment_image(image, 32, OFF, np.random.default_rng(0))
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == squash(image, 32)).all()


def test_flip_mirrors_unless_forbidden():
    image = Image.fromarray(picture(3))
    config = OFF.model_copy(update={"flip": 1.0})
    assert (augment_image(image, 32, config, np.random.default_rng(0)) == squash(image, 32)[:, ::-1]).all()
    assert (augment_image(image, 32, config, np.random.default_rng(0), may_flip=False) == squash(image, 32)).all()


def test_random_crops_keep_the_asked_share_and_shape():
    rng = np.random.default_rng(0)
    for width, height in ((64, 48), (100, 10), (10, 100), (1, 1)):
        for _ in range(200):
            x0, y0, x1, y1 = random_crop(width, height, (0.2, 1.0), rng)
            assert 0 <= x0 < x1 <= width
            assert 0 <= y0 < y1 <= height
            if (width, height) == (64, 48):
                assert 0.18 <= (x1 - x0) * (y1 - y0) / (width * height) <= 1
                assert 0.7 <= (x1 - x0) / (y1 - y0) <= 1.4


def test_same_generator_same_pixels():
    image = Image.fromarray(picture(1))
    config = AugmentationConfig()
    first, again, other = (augment_image(image, 48, config, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert (first == again).all()
    assert (first != other).any()


def test_colour_operations_equal_pillow():
    for number in range(10):
        image = (picture(number) // (1 + number % 3) + 10 * (number % 4)).astype(np.uint8)
        assert (auto_contrast(image, 1) == np.asarray(ImageOps.autocontrast(Image.fromarray(image)))).all()
        assert (equalize(image, 1) == np.asarray(ImageOps.equalize(Image.fromarray(image)))).all()
    flat = np.full((5, 5, 3), 77, dtype=np.uint8)
    assert (auto_contrast(flat, 1) == flat).all()
    assert (equalize(flat, 1) == flat).all()


def test_operations_have_the_published_magnitudes():
    image = np.full((40, 40, 3), 100, dtype=np.uint8)
    assert (brightness(image, 1) == 136).all()
    moved = translate_x(image, -1)
    assert (moved[:, :7] == 128).all()
    assert (moved[:, 7:] == 100).all()
    spot = image.copy()
    spot[20, 20] = 200
    sharp = sharpness(spot, 1)
    assert sharp[20, 20, 0] > 200
    assert sharp[20, 21, 0] < 100
    assert (sharp[0] == image[0]).all()


def test_operations_keep_size_and_type_and_leave_their_input_alone():
    image = picture(2)
    before = image.copy()
    for operation in IMAGE_OPERATIONS:
        for sign in (1.0, -1.0):
            result = operation(image, sign)
            assert result.shape == image.shape
            assert result.dtype == np.uint8
    assert (image == before).all()


def test_about_a_third_of_images_pass_rand_augment_untouched():
    image = picture(2)
    rng = np.random.default_rng(0)
    untouched = np.mean([(rand_augment(image, IMAGE_OPERATIONS, rng) == image).all() for _ in range(1000)])
    assert untouched == pytest.approx((0.5 + 0.05) ** 2, abs=0.05)


def test_box_augmentation_moves_the_box_with_its_pixels():
    pixels = np.zeros((48, 64, 3), dtype=np.uint8)
    pixels[16:32, 24:40] = 255
    config = BoxAugmentationConfig(rand_augment=False)
    for seed in range(30):
        augmented, placement = augment_with_box(Image.fromarray(pixels), (24, 16, 16, 16), 96, config, np.random.default_rng(seed))
        x, y, w, h = placement.place((24, 16, 16, 16), 0.5) or (0, 0, 0, 0)
        rows, columns = np.nonzero(augmented[..., 0] > 127)
        assert np.allclose([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], [x, y, x + w, y + h], atol=2)


def test_box_augmentation_never_moves_pixels_through_rand_augment():
    image = np.zeros((48, 48, 3), dtype=np.uint8)
    image[10:20, 10:20] = 200
    for operation in BOX_OPERATIONS:
        changed = operation(image, 1.0)
        assert (changed[30:, 30:] == changed[30, 30]).all()
        assert (changed[12:18, 12:18] != changed[30, 30]).all()


def test_sharpness_and_translation_equal_their_plain_formulas():
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], dtype=np.float32) / 13
    for number, size in enumerate(((48, 64), (16, 16), (5, 9))):
        image = picture(number, *size)
        smooth = cv2.filter2D(image, -1, kernel)[1:-1, 1:-1].astype(np.float32)
        plain = image.copy()
        plain[1:-1, 1:-1] = np.clip(smooth + ENHANCE * (image[1:-1, 1:-1] - smooth), 0, 255).astype(np.uint8)
        assert (sharpness(image, 1) == plain).all()
        for sign in (1.0, -1.0):
            for operation, matrix in ((translate_x, [[1, 0, -7 * sign], [0, 1, 0]]), (translate_y, [[1, 0, 0], [0, 1, -7 * sign]])):
                warped = cv2.warpAffine(image, np.array(matrix, dtype=np.float64), image.shape[1::-1], borderValue=FILL)
                assert (operation(image, sign) == warped).all()
