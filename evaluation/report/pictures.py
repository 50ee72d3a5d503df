"""Images for the page: enlarged or reduced to a size for viewing, encoded as data URIs, attention laid over them."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from PIL import Image

PNG_LIMIT = 96
"""Images whose longer side is at most this many pixels are drawings or thumbnails: PNG keeps their edges, and costs little."""


def view(image: np.ndarray, side: int) -> Image.Image:
    """Bring an image to a viewing size: small ones are enlarged (bicubic), large ones reduced.

    Args:
        image: uint8 [H, W, 3].
        side: the longer side of the result in pixels.

    Raises:
        ValueError: another shape or dtype.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"an image for the report is uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return Image.fromarray(image).resize(size, Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS)


def image_uri(image: np.ndarray, side: int) -> str:
    """An image at a viewing size as a data URI, PNG where it is small by itself and JPEG otherwise."""
    return encode(view(image, side), lossless=max(image.shape[:2]) <= PNG_LIMIT)


def attention_uri(image: np.ndarray, weights: np.ndarray, side: int) -> str:
    """A heat map over an image as a data URI (JPEG).

    Args:
        image: uint8 [H, W, 3].
        weights: [g, g] attention over the patches of the whole image; scaled to its own maximum.
        side: the longer side of the result in pixels.
    """
    base = view(image, side)
    heat = scaled(weights)
    smooth = Image.fromarray((255 * heat).astype(np.uint8)).resize(base.size, Image.Resampling.BICUBIC)
    strength = np.asarray(smooth, dtype=np.float32)[..., None] / 255
    colours = 255 * np.asarray(colormaps["inferno"](strength[..., 0]))[..., :3]
    # the image stays visible, pale, where the word does not look
    pale = 0.55 * np.asarray(base, dtype=np.float32) + 0.45 * 255
    share = 0.65 * strength**0.75
    return encode(Image.fromarray(((1 - share) * pale + share * colours).astype(np.uint8)), lossless=False)


def scaled(weights: np.ndarray) -> np.ndarray:
    """[g, g] weights divided by their maximum; what is not finite or negative counts as 0."""
    clean = np.clip(np.nan_to_num(np.asarray(weights, dtype=np.float64), nan=0.0, posinf=0.0), 0.0, None)
    return clean / max(float(clean.max(initial=0.0)), np.finfo(np.float64).tiny)


def place_of_maximum(weights: np.ndarray) -> str:
    """Where a map is strongest, in words such as "upper left"."""
    rows, columns = weights.shape
    row, column = divmod(int(np.argmax(scaled(weights))), columns)
    vertical = ("upper", "middle", "lower")[3 * row // rows]
    horizontal = ("left", "centre", "right")[3 * column // columns]
    return "centre" if (vertical, horizontal) == ("middle", "centre") else f"{vertical} {horizontal}"


def encode(image: Image.Image, lossless: bool) -> str:
    """PNG or JPEG data URI."""
    buffer = io.BytesIO()
    if lossless:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=82, optimize=True)
    return f"data:image/{'png' if lossless else 'jpeg'};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def rectangle(box: Sequence[float]) -> dict[str, float] | None:
    """x, y, w, h rounded for the page; None for a box that cannot be drawn (not finite, or no area)."""
    x, y, width, height = map(float, box)
    if not np.isfinite([x, y, width, height]).all() or width <= 0 or height <= 0:
        return None
    return {"x": round(x, 2), "y": round(y, 2), "width": round(width, 2), "height": round(height, 2)}
