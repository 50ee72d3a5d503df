"""Recorded tensors of pure functions beside ours: position tables for other resolutions, and boxes."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor

from models.checkpoints.resize import resize_absolute, resize_beit_table, resize_swin_table
from models.checkpoints.vision_keys import vision_buffers
from models.config import Beit2Config
from models.objectives.box import paired_giou, paired_overlap, to_corners
from parity.compare import EXACT, Finding, Tolerance, compare

RESIZED = Tolerance(2e-6, 1e-5)
"""The official code resamples in float32 and float64 by turns."""
BEIT_EXTRA_ROWS = 3
PATCH = 16


def check_tensors(tensors: Mapping[str, Tensor]) -> tuple[list[Finding], list[str]]:
    """Compare what is recorded as "function/what/..."; returns also the functions that are not covered."""
    by_function: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        function, rest = name.split("/", 1)
        by_function[function][rest] = tensor
    findings = [found for name, own in by_function.items() if name in CHECKS for found in CHECKS[name](name, own)]
    return findings, [name for name in by_function if name not in CHECKS]


def _resized(
    resize: Callable[[Tensor, int], Tensor], side: Callable[[Tensor], int]
) -> Callable[[str, Mapping[str, Tensor]], list[Finding]]:
    """Check of examples that are recorded as ".../src" and ".../dst"; `side` reads from the latter what was asked for."""

    def check(name: str, tensors: Mapping[str, Tensor]) -> list[Finding]:
        pairs = [(tensors[key.replace("/dst", "/src")], wanted) for key, wanted in tensors.items() if key.endswith("/dst")]
        return [compare("functions", name, "float32", wanted, resize(source, side(wanted)), RESIZED) for source, wanted in pairs]

    return check


def _table_side(table: Tensor, extra: int = 0) -> int:
    """Tokens along one side of the grid or window that a relative table is for."""
    return (math.isqrt(table.shape[0] - extra) + 1) // 2


def _picture_side(positions: Tensor) -> int:
    return math.isqrt(positions.shape[1] - 1)


def _relative_index(name: str, tensors: Mapping[str, Tensor]) -> list[Finding]:
    findings = []
    for recorded in tensors.values():
        grid = math.isqrt(recorded.shape[0] - 1)
        ours = next(iter(vision_buffers(Beit2Config(image_size=grid * PATCH, patch_size=PATCH, depth=1)).values()))
        findings.append(compare("functions", name, "", recorded, ours, EXACT))
    return findings


def _boxes(name: str, tensors: Mapping[str, Tensor]) -> list[Finding]:
    left, right = tensors["a_xyxy"], tensors["b_xyxy"]
    rows, columns = len(left), len(right)
    pairs = left[:, None].expand(-1, columns, -1).reshape(-1, 4), right[None].expand(rows, -1, -1).reshape(-1, 4)
    shared, union = paired_overlap(*pairs)
    ours = {"iou": shared / union, "union": union, "giou": paired_giou(*pairs)}
    ours = {key: value.view(rows, columns) for key, value in ours.items()} | {
        f"{side}_xyxy": to_corners(tensors[f"{side}_cxcywh"]) for side in ("a", "b") if f"{side}_cxcywh" in tensors
    }
    return [compare("functions", f"{name} {key}", "float32", tensors[key], value, RESIZED) for key, value in ours.items() if key in tensors]


CHECKS: dict[str, Callable[[str, Mapping[str, Tensor]], list[Finding]]] = {
    "beit_relpos": _resized(resize_beit_table, partial(_table_side, extra=BEIT_EXTRA_ROWS)),
    "beit_relpos_index": _relative_index,
    "swin_relpos_interp2d": _resized(partial(resize_swin_table, method="spline"), _table_side),
    "swin_relpos_bicubic": _resized(partial(resize_swin_table, method="bicubic"), _table_side),
    "abs_pos": _resized(resize_absolute, _picture_side),
    "box": _boxes,
}
