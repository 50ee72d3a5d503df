"""JPEG photographs decoded only as far as a crop needs, straight into the arrays that augmentation works on.

libjpeg can leave out the higher frequencies and decode at 1/2, 1/4 or 1/8 of the resolution. A crop whose sides still have the pixels
that the model takes loses nothing it would keep: it would be shrunk to that size anyway.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from dataset.boxes import Crop

_REDUCED = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    1: cv2.IMREAD_COLOR,
}
MOST_SKIPPED = 1.5
"""Pixels to a pixel in linear interpolation; more would alias."""
_START_OF_IMAGE = b"\xff\xd8\xff"
_END_OF_IMAGE = b"\xff\xd9"


def is_complete_jpeg(data: bytes) -> bool:
    """Whether a file begins and ends as JPEG files do. OpenCV fills the missing part of a cut one with grey without a word."""
    return data.startswith(_START_OF_IMAGE) and data.endswith(_END_OF_IMAGE)


@dataclass(frozen=True)
class EncodedJpeg:
    """A JPEG file of grey or YCbCr pixels whose header was read.

    Attributes:
        data: the file.
        width, height: in pixels, as the header has them; rotation marks of cameras are ignored, as boxes do.
    """

    data: bytes
    width: int
    height: int

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.width, self.height

    def square(self, crop: Crop, side: int) -> np.ndarray | None:
        """A crop of the image resized to a square.

        Args:
            crop: in pixels of the whole image.
            side: of the result in pixels.

        Returns:
            uint8 [side, side, 3], RGB; None where the decoder gives up.
        """
        scale = reduction(crop, side)
        pixels = self._decoded(scale)  # uint8 [ceil(height / scale), ceil(width / scale), 3], BGR
        if pixels is None or pixels.shape[:2] != (-(-self.height // scale), -(-self.width // scale)):
            return None
        x0, y0, x1, y1 = crop
        try:
            pixels = _resized(pixels[y0:y1, x0:x1], side) if scale == 1 else _resampled(pixels, crop, scale, side)
        except cv2.error:  # such as a side beyond what OpenCV can resample
            return None
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)  # here, where pixels are fewest

    def _decoded(self, scale: int) -> np.ndarray | None:
        try:
            return cv2.imdecode(np.frombuffer(self.data, np.uint8), _REDUCED[scale] | cv2.IMREAD_IGNORE_ORIENTATION)
        except cv2.error:  # such as its own limit on pixels
            return None


def _resized(pixels: np.ndarray, side: int) -> np.ndarray:
    """Pixels [h, w, 3] as [side, side, 3], with the cheapest filters that stay near Pillow's bicubic one, which averages in shrinking."""
    height, width = pixels.shape[:2]
    fine = _fine(width, side), _fine(height, side)
    if fine == (side, side):
        return cv2.resize(pixels, fine, interpolation=cv2.INTER_CUBIC if min(height, width) < side else cv2.INTER_LINEAR)
    return _averaged(cv2.resize(pixels, fine, interpolation=cv2.INTER_LINEAR), side)


def _resampled(pixels: np.ndarray, crop: Crop, scale: int, side: int) -> np.ndarray:
    """A crop of a reduced image as [side, side, 3]; its edges need not fall on whole pixels."""
    x0, y0, x1, y1 = (edge / scale for edge in crop)
    fine = _fine(x1 - x0, side), _fine(y1 - y0, side)
    width, height = (x1 - x0) / fine[0], (y1 - y0) / fine[1]  # of a pixel of the result, in pixels of the reduced image
    origin = np.array([[width, 0, x0 + width / 2 - 0.5], [0, height, y0 + height / 2 - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return _averaged(cv2.warpAffine(pixels, origin, fine, flags=flags, borderMode=cv2.BORDER_REPLICATE), side)


def _fine(length: float, side: int) -> int:
    """The multiple of `side` to interpolate a length to before averaging, so that linear interpolation hardly skips pixels."""
    return side * max(1, math.ceil(length / side / MOST_SKIPPED))


def _averaged(pixels: np.ndarray, side: int) -> np.ndarray:
    """Shrink by whole numbers, for which OpenCV averages several times as fast as for others."""
    return pixels if pixels.shape[:2] == (side, side) else cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)


def reduction(crop: Crop, side: int) -> int:
    """By what to divide the resolution in decoding: the most of 1, 2, 4, 8 that leaves a crop at least `side` pixels both ways."""
    least = min(crop[2] - crop[0], crop[3] - crop[1])
    return next((scale for scale in _REDUCED if least >= scale * side), 1)
