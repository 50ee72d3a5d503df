"""JPEG photographs decoded only as far as a crop needs, straight into the arrays that augmentation works on.

libjpeg can leave out the higher frequencies and decode at 1/2, 1/4 or 1/8 of the resolution. A crop whose sides still have the pixels
that the model takes loses nothing it would keep: it would be shrunk to that size anyway.
"""

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

        Where the file is decoded at a reduced scale, the crop's edges fall on whole pixels of that scale, at most half a pixel of the
        result away. Shrinking averages areas, enlarging is bicubic.

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
        x0, y0, x1, y1 = _scaled(crop, scale)
        part = pixels[y0:y1, x0:x1]
        # both sides must shrink: OpenCV's area averaging turns into a crude linear one where any side grows
        shrinks = part.shape[0] >= side and part.shape[1] >= side
        part = cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        return cv2.cvtColor(part, cv2.COLOR_BGR2RGB)  # here, where pixels are fewest

    def _decoded(self, scale: int) -> np.ndarray | None:
        try:
            return cv2.imdecode(np.frombuffer(self.data, np.uint8), _REDUCED[scale] | cv2.IMREAD_IGNORE_ORIENTATION)
        except cv2.error:  # such as its own limit on pixels
            return None


def reduction(crop: Crop, side: int) -> int:
    """By what to divide the resolution in decoding: the most of 1, 2, 4, 8 that leaves a crop at least `side` pixels both ways."""
    for scale in _REDUCED:
        x0, y0, x1, y1 = _scaled(crop, scale)
        if x1 - x0 >= side and y1 - y0 >= side:
            return scale
    return 1


def _scaled(crop: Crop, scale: int) -> Crop:
    """The crop in pixels of the reduced image, its edges rounded to the nearest."""
    x0, y0, x1, y1 = ((edge + scale // 2) // scale for edge in crop)
    return x0, y0, x1, y1
