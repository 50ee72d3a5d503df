"""From image bytes to the square uint8 array the model takes: decoding, cropping, flipping, resizing.

Random changes draw from the generator they are given and from nothing else. Colours are RGB throughout; normalisation happens in the
model, on its device.
"""

import io
import math
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from common.errors import BadRecord
from dataset.boxes import Box, Crop, Placement, crop_keeping
from dataset.config import AugmentationConfig, BoxAugmentationConfig, Decoding
from dataset.jpeg import EncodedJpeg, is_complete_jpeg
from dataset.rand_augment import BOX_OPERATIONS, IMAGE_OPERATIONS, Operation, rand_augment
from dataset.remote import reason
from dataset.storage import Storage

MAX_PIXELS = 64_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "MPO")
"""Formats that are read. Others, such as EPS, would start foreign programs."""

Picture = Image.Image | EncodedJpeg
"""What augmentation starts from: decoded RGB pixels, or a file that is decoded once its crop is known."""


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image to RGB; grey, palette, CMYK and 16-bit images are converted, transparency is dropped.

    Raises:
        BadRecord: the bytes are not an image, are cut short, or hold more than `max_pixels` pixels (which is checked first).
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise BadRecord(f"the image has {image.width} x {image.height} pixels, more than max_pixels = {max_pixels}", "image")
            image.load()
            return _to_rgb(image)
    except BadRecord:
        raise
    except Exception as error:  # broken files make decoders raise nearly anything
        reason = "unknown format" if isinstance(error, Image.UnidentifiedImageError) else str(error) or type(error).__name__
        raise BadRecord(f"the image cannot be decoded ({reason})", "image") from error


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read and decode an image file.

    Raises:
        BadRecord: the file is missing or unreadable, or `decode_image` refuses its bytes.
    """
    return decode_image(_file_bytes(path), max_pixels)


def open_picture(data: bytes, max_pixels: int, decoding: Decoding) -> Picture:
    """An image to be augmented. With "fast" decoding most JPEG files are decoded only once it is known which part is needed.

    Raises:
        BadRecord: as `decode_image`; what is wrong behind the header of a JPEG file may show in augmentation instead.
    """
    return (_encoded_jpeg(data, max_pixels) if decoding == "fast" else None) or decode_image(data, max_pixels)


def read_picture(path: Path, max_pixels: int, decoding: Decoding) -> Picture:
    """Read an image file that is to be augmented; raises as `read_image` and `open_picture`."""
    return open_picture(_file_bytes(path), max_pixels, decoding)


def _file_bytes(path: Path) -> bytes:
    try:
        return Storage().read_whole(path)
    except OSError as error:
        raise BadRecord(f"the image {path} cannot be read ({reason(error)})", "image") from error


def _encoded_jpeg(data: bytes, max_pixels: int) -> EncodedJpeg | None:
    """A JPEG file that OpenCV decodes as Pillow does; None for all others, a cut or too large one too: Pillow says what is wrong."""
    if not is_complete_jpeg(data):
        return None
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as header:
            mode, (width, height) = header.mode, header.size
    except Exception:  # as above
        return None
    return EncodedJpeg(data, width, height) if mode in ("RGB", "L") and width * height <= max_pixels else None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")  # copies, so the file's buffer can go


def squash(image: Image.Image, size: int) -> np.ndarray:
    """Resize to a square, whatever the aspect ratio: uint8 [size, size, 3]."""
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))


def random_crop(width: int, height: int, scale: tuple[float, float], rng: np.random.Generator) -> Crop:
    """A crop whose area is a share of the image's drawn from `scale`, its aspect ratio log-uniform in 3/4 to 4/3.

    Where ten draws do not fit into the image, the largest centred crop of an allowed ratio is taken.
    """
    low, high = 3 / 4, 4 / 3
    for _ in range(10):
        area = width * height * (scale[0] + (scale[1] - scale[0]) * rng.random())
        ratio = math.exp(math.log(low) + (math.log(high) - math.log(low)) * rng.random())
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return x, y, x + w, y + h
    w, h = min(width, max(1, round(height * high))), min(height, max(1, round(width / low)))
    x, y = (width - w) // 2, (height - h) // 2
    return x, y, x + w, y + h


def augment_image(image: Picture, size: int, config: AugmentationConfig, rng: np.random.Generator, may_flip: bool = True) -> np.ndarray:
    """The training transform of an image without boxes: crop, flip, resize, RandAugment.

    Args:
        image: RGB pixels, or a file that is still to be decoded.
        size: side of the result in pixels.
        config: which steps take place.
        rng: the sample's generator.
        may_flip: False where mirroring would make a caption wrong.

    Returns:
        uint8 [size, size, 3].

    Raises:
        BadRecord: the file turns out to be broken.
    """
    width, height = image.size
    crop = (0, 0, width, height) if config.crop_scale is None else random_crop(width, height, config.crop_scale, rng)
    flip = rng.random() < config.flip and may_flip
    return _finish(image, crop, size, flip, IMAGE_OPERATIONS if config.rand_augment else (), rng)


def augment_with_box(
    image: Picture, keep: Box, size: int, config: BoxAugmentationConfig, rng: np.random.Generator, may_flip: bool = True
) -> tuple[np.ndarray, Placement]:
    """The training transform of an image with boxes: a crop that holds the box `keep`, flip, resize, RandAugment on colours.

    Args:
        image: RGB pixels, or a file that is still to be decoded.
        keep: a box inside the image.
        size: side of the result in pixels.
        config: which steps take place.
        rng: the sample's generator.
        may_flip: False where mirroring would make a caption wrong.

    Returns:
        uint8 [size, size, 3], and where boxes go.

    Raises:
        BadRecord: the file turns out to be broken.
    """
    crop = crop_keeping(keep, image.width, image.height, rng) if config.crop else (0, 0, image.width, image.height)
    flip = rng.random() < config.flip and may_flip
    pixels = _finish(image, crop, size, flip, BOX_OPERATIONS if config.rand_augment else (), rng)
    return pixels, Placement(crop, flip, size)


def _finish(image: Picture, crop: Crop, size: int, flip: bool, operations: tuple[Operation, ...], rng: np.random.Generator) -> np.ndarray:
    """Crop, mirror, resize, RandAugment, in the published order; a file is resized while it is decoded and mirrored after that."""
    pixels = _fast_square(image, crop, size, flip) if isinstance(image, EncodedJpeg) else _exact_square(image, crop, size, flip)
    return rand_augment(pixels, operations, rng) if operations else pixels


def _exact_square(image: Image.Image, crop: Crop, size: int, flip: bool) -> np.ndarray:
    image = image.crop(crop)
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return squash(image, size)


def _fast_square(image: EncodedJpeg, crop: Crop, size: int, flip: bool) -> np.ndarray:
    pixels = image.square(crop, size)
    if pixels is None:  # Pillow can do it, or says what is wrong
        return _exact_square(decode_image(image.data, image.width * image.height), crop, size, flip)
    return cv2.flip(pixels, 1) if flip else pixels
