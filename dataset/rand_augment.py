"""RandAugment as the X-VLM family uses it: two operations, level 7 of 10, each applied half of the time.

Operations take and return RGB uint8 [H, W, 3]. Geometric ones fill with grey and interpolate linearly.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

LEVEL = 0.7
ENHANCE = LEVEL * 1.8 + 0.1
SHEAR = LEVEL * 0.3
TRANSLATE = round(LEVEL * 10)
"""Pixels."""
ROTATE = LEVEL * 30
"""Degrees."""
FILL = (128, 128, 128)
_LEVELS = np.arange(256)
_BRIGHTER = np.clip(_LEVELS * ENHANCE, 0, 255).astype(np.uint8)
_SMOOTHING = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], dtype=np.float32) / 13
DRAWS = 2
SKIP = 0.5

Operation = Callable[[np.ndarray, float], np.ndarray]
"""(image, sign) -> image; the sign, +1 or -1, is the direction of a geometric operation."""


def rand_augment(image: np.ndarray, operations: Sequence[Operation], rng: np.random.Generator) -> np.ndarray:
    """Apply two operations, drawn with replacement; each is skipped half of the time."""
    for _ in range(DRAWS):
        choice, skip, sign = rng.random(3).tolist()
        if skip <= SKIP:
            image = operations[int(choice * len(operations))](image, 1.0 if sign < 0.5 else -1.0)
    return image


def identity(image: np.ndarray, sign: float) -> np.ndarray:
    """The image itself."""
    return image


def auto_contrast(image: np.ndarray, sign: float) -> np.ndarray:
    """Stretch each channel to the full range, as Pillow does."""
    table = np.empty((256, 3), dtype=np.uint8)
    for channel, plane in enumerate(cv2.split(image)):
        low, high = int(plane.min()), int(plane.max())
        scale = 255.0 / (high - low) if high > low else 1.0
        offset = -low * scale if high > low else 0.0
        table[:, channel] = np.clip(_LEVELS * scale + offset, 0, 255).astype(np.uint8)
    return cv2.LUT(image, table[None])


def equalize(image: np.ndarray, sign: float) -> np.ndarray:
    """Flatten each channel's histogram, as Pillow does."""
    table = np.empty((256, 3), dtype=np.uint8)
    for channel in range(3):
        counts = cv2.calcHist([image], [channel], None, [256], [0, 256]).reshape(-1).astype(np.int64)
        used = counts[counts > 0]
        step = (int(used.sum()) - int(used[-1])) // 255
        if len(used) <= 1 or step == 0:
            table[:, channel] = _LEVELS
        else:
            below = np.concatenate([[0], counts.cumsum()[:-1]])
            table[:, channel] = np.minimum((step // 2 + below) // step, 255)
    return cv2.LUT(image, table[None])


def brightness(image: np.ndarray, sign: float) -> np.ndarray:
    """Brighten by a fixed factor."""
    return cv2.LUT(image, _BRIGHTER)


def sharpness(image: np.ndarray, sign: float) -> np.ndarray:
    """Move away from a smoothed copy by a fixed factor; the outermost pixels stay as they are."""
    smooth = cv2.filter2D(image, -1, _SMOOTHING).astype(np.float32)
    away = image - smooth
    away *= ENHANCE
    away += smooth
    sharp = np.clip(away, 0, 255, out=away).astype(np.uint8)
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        sharp[edge] = image[edge]
    return sharp


def shear_x(image: np.ndarray, sign: float) -> np.ndarray:
    """Shear along x."""
    return _warp(image, [[1, sign * SHEAR, 0], [0, 1, 0]])


def shear_y(image: np.ndarray, sign: float) -> np.ndarray:
    """Shear along y."""
    return _warp(image, [[1, 0, 0], [sign * SHEAR, 1, 0]])


def translate_x(image: np.ndarray, sign: float) -> np.ndarray:
    """Move along x by 7 pixels."""
    return _moved(image, sign, axis=1)


def translate_y(image: np.ndarray, sign: float) -> np.ndarray:
    """Move along y by 7 pixels."""
    return _moved(image, sign, axis=0)


def rotate(image: np.ndarray, sign: float) -> np.ndarray:
    """Turn about the middle."""
    height, width = image.shape[:2]
    return _warp(image, cv2.getRotationMatrix2D((width / 2, height / 2), sign * ROTATE, 1))


def _moved(image: np.ndarray, sign: float, axis: int) -> np.ndarray:
    """The image moved towards its start (sign 1) or its end by whole pixels: what a warp gives, without one."""
    length = image.shape[axis]
    kept = max(length - TRANSLATE, 0)
    if sign > 0:
        target, source, bare = slice(0, kept), slice(length - kept, length), slice(kept, length)
    else:
        target, source, bare = slice(length - kept, length), slice(0, kept), slice(0, length - kept)
    across = (slice(None),) * axis
    moved = np.empty_like(image)
    moved[(*across, target)] = image[(*across, source)]
    moved[(*across, bare)] = FILL
    return moved


def _warp(image: np.ndarray, matrix: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    matrix = np.asarray(matrix, dtype=np.float64)
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=FILL)


BOX_OPERATIONS: tuple[Operation, ...] = (identity, auto_contrast, equalize, brightness, sharpness)
"""Operations that leave boxes where they are."""
IMAGE_OPERATIONS: tuple[Operation, ...] = (*BOX_OPERATIONS, shear_x, shear_y, translate_x, translate_y, rotate)
