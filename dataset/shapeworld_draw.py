"""Drawing of scenes: masks, tight boxes and the picture itself (OpenCV, three times oversampled)."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from dataset.shapeworld_scene import RGB, Background, Box, Scene, SceneObject

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Window = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels, the last two exclusive."""

OVERSAMPLING = 3
EXTENT_COVERAGE = 64  # of 255: a pixel belongs to an object when a quarter of it is covered
RING_HOLE = 0.5
PATTERN_PERIOD = 4.0 / 48.0  # of stripes and dots, as a share of the image side

PALETTE: dict[str, RGB] = {
    "red": (222, 28, 32),
    "green": (30, 150, 50),
    "blue": (35, 65, 225),
    "yellow": (250, 225, 30),
    "purple": (135, 40, 185),
    "cyan": (50, 215, 225),
}
LIGHT_COLORS = ("yellow", "cyan")  # their stripes and dots are dark, those of the others white
DARK_INK: RGB = (40, 35, 40)
LIGHT_INK: RGB = (250, 250, 250)


def draw(scene: Scene) -> Pixels:
    """The picture: uint8 [size, size, 3], RGB."""
    picture = _draw_background(scene.background, scene.size).astype(np.float32)
    for item in scene.objects:
        window = _window(item, scene.size)
        ink, alpha = _draw_object(item, scene.size, window)
        x0, y0, x1, y1 = window
        picture[y0:y1, x0:x1] = picture[y0:y1, x0:x1] * (1.0 - alpha[..., None]) + ink
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def object_mask(item: SceneObject, size: int) -> Mask:
    """Pixels that the whole object takes in a picture of this size, as if nothing covered it: bool [size, size]."""
    stencil = _stencil(item, size * OVERSAMPLING, hole=True)
    return cv2.resize(stencil, (size, size), interpolation=cv2.INTER_AREA) >= EXTENT_COVERAGE


def footprint(item: SceneObject, size: int) -> Mask:
    """The ground an object stands on, a ring's hole included: bool [size, size]. It decides who covers whom."""
    return _stencil(item, size, hole=False) > 0


def tight_box(mask: Mask) -> Box:
    """The smallest box around the True pixels of a mask [height, width].

    Raises:
        ValueError: the mask is empty.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        raise ValueError("an empty mask has no box")
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y


def _polygon(shape: str) -> npt.NDArray[np.float64]:
    """Corners [K, 2] of a shape of radius 1 around the origin; y points down."""
    if shape in ("circle", "ring"):
        turn = np.arange(48) * (2 * np.pi / 48)
        return np.stack([np.cos(turn), np.sin(turn)], axis=1)
    if shape == "square":
        return np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 0.87
    if shape == "triangle":
        return np.array([(0, -1), (1.05, 0.88), (-1.05, 0.88)])
    if shape == "star":
        turn = np.arange(10) * (np.pi / 5) - np.pi / 2
        reach = np.where(np.arange(10) % 2 == 0, 1.12, 0.48)[:, None]
        return np.stack([np.cos(turn), np.sin(turn)], axis=1) * reach
    if shape == "cross":
        a = 0.34
        corners = [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a)]
        return np.array(corners, dtype=np.float64)
    raise ValueError(f"no such shape: {shape}")


def _window(item: SceneObject, size: int) -> Window:
    """Pixels around an object beyond which it certainly does not reach; drawing no more than these is what makes drawing fast."""
    x, y, reach = item.center[0] * size, item.center[1] * size, 1.4 * item.radius * size + 1
    return max(0, int(x - reach)), max(0, int(y - reach)), min(size, int(x + reach) + 1), min(size, int(y + reach) + 1)


def _stencil(item: SceneObject, side: int, hole: bool, window: Window | None = None) -> Pixels:
    """The shape on an empty canvas of side x side pixels, or a window of it: uint8, 255 inside."""
    x0, y0, x1, y1 = window or (0, 0, side, side)
    turn = np.array([(np.cos(item.angle), np.sin(item.angle)), (-np.sin(item.angle), np.cos(item.angle))])
    around = _polygon(item.shape) @ turn * item.radius
    stencil = np.zeros((y1 - y0, x1 - x0), np.uint8)
    for reach, value in ((1.0, 255), (RING_HOLE, 0)):
        if value == 0 and not (hole and item.shape == "ring"):
            continue
        corners = np.rint((around * reach + item.center) * side - 0.5).astype(np.int32)
        cv2.fillPoly(stencil, [corners - np.array((x0, y0), np.int32)], (value,))
    return stencil


def _draw_object(item: SceneObject, size: int, window: Window) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """One object in a window of the picture: its colour times its coverage [h, w, 3], and its coverage [h, w] in [0, 1]."""
    side = size * OVERSAMPLING
    x0, y0, x1, y1 = (edge * OVERSAMPLING for edge in window)
    stencil = _stencil(item, side, hole=True, window=(x0, y0, x1, y1))
    rim = max(1, round(side / 72))  # two thirds of a pixel at 48: parts neighbours and keeps light colours off light ground
    core = cv2.erode(stencil, np.ones((3, 3), np.uint8), iterations=rim, borderType=cv2.BORDER_CONSTANT, borderValue=(0,)) > 0
    pattern = _pattern(item, side, np.arange(x0, x1, dtype=np.float64) + 0.5, np.arange(y0, y1, dtype=np.float64) + 0.5)
    layers = (stencil > 0).astype(np.uint8) + core + (core & pattern)  # 0 nothing, 1 rim, 2 colour, 3 pattern
    color = PALETTE[item.color]
    dark = tuple(channel * 2 // 5 for channel in color)
    ink = DARK_INK if item.color in LIGHT_COLORS else LIGHT_INK
    tones = np.array([(0, 0, 0), dark, color, ink], np.uint8)
    small = (window[2] - window[0], window[3] - window[1])
    painted = cv2.resize(tones.take(layers, axis=0), small, interpolation=cv2.INTER_AREA).astype(np.float32)
    return painted, cv2.resize(stencil, small, interpolation=cv2.INTER_AREA).astype(np.float32) / 255.0


def _pattern(item: SceneObject, side: int, columns: npt.NDArray[np.float64], rows: npt.NDArray[np.float64]) -> Mask:
    """Where a texture puts its second tone, fixed to the object's centre: bool [rows, columns] of a canvas of side x side."""
    if item.texture == "plain":
        return np.zeros((len(rows), len(columns)), np.bool_)
    period = PATTERN_PERIOD * side
    x, y = columns - item.center[0] * side, rows - item.center[1] * side
    if item.texture == "striped":
        return np.broadcast_to(((y / period + 0.2) % 1.0 < 0.4)[:, None], (len(rows), len(columns)))
    u, v = (x / period + 0.5) % 1.0 - 0.5, (y / period + 0.5) % 1.0 - 0.5
    return u[None, :] ** 2 + v[:, None] ** 2 < 0.08


def _draw_background(background: Background, size: int) -> Pixels:
    """The ground: uint8 [size, size, 3]."""
    first, second = (np.array(tone, np.float64) for tone in background.colors)
    steps = (np.arange(size) + 0.5) / size
    x, y = steps[None, :], steps[:, None]
    if background.kind == "gradient":
        along = (x - 0.5) * np.cos(background.angle) + (y - 0.5) * np.sin(background.angle)
        share = np.clip(along / 1.4 + 0.5, 0, 1)
    elif background.kind == "checkered":
        share = (np.floor(x / background.cell) + np.floor(y / background.cell)) % 2
    elif background.kind == "noisy":
        share = np.random.default_rng(background.noise_seed).random((size, size))
    elif background.kind == "plain":
        share = np.zeros((size, size))
    else:
        raise ValueError(f"no such background: {background.kind}")
    return np.rint(first + share[..., None] * (second - first)).astype(np.uint8)
