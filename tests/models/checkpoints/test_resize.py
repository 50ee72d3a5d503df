"""Position tables for other resolutions."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from common.errors import UserError
from models.checkpoints.resize import (
    fit_positions,
    geometric_positions,
    resize_absolute,
    resize_beit_table,
    resize_frames,
    resize_swin_table,
    spline_weights,
)
from models.config import Beit2Config, ClipVitConfig, SwinConfig
from models.vlm import build_vision
from recorded import recorded_folder

RESIZES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "beit_relpos": resize_beit_table,
    "swin_relpos_interp2d": resize_swin_table,
    "swin_relpos_bicubic": partial(resize_swin_table, method="bicubic"),
    "abs_pos": resize_absolute,
}


@pytest.mark.parametrize("family", ["xvlm", "x2vlm", "xfm"])
def test_recorded_tables_are_met_bit_for_bit(family: str) -> None:
    tensors = load_file(recorded_folder(f"functions_{family}") / "tensors.safetensors")
    sources = [name for name in tensors if name.endswith("/src") and name.split("/")[0] in RESIZES]
    assert len(sources) >= 8
    for name in sources:
        function, sizes, _ = name.split("/")
        resized = RESIZES[function](tensors[name], int(sizes.split("to")[1]))
        assert torch.equal(resized, tensors[f"{function}/{sizes}/dst"]), name


@pytest.mark.parametrize(("side", "wanted", "ratio"), [(13, 23, 1.240724), (13, 29, 1.337515), (23, 29, 1.047191), (27, 47, 1.090307)])
def test_the_ratio_of_the_progression_is_the_published_one(side: int, wanted: int, ratio: float) -> None:
    positions = geometric_positions(side, wanted)
    assert positions[side // 2 + 1] == 1.0
    assert positions[side // 2 + 2] - 1.0 == pytest.approx(ratio, abs=1e-6)


def test_a_cubic_is_its_own_spline() -> None:
    points, targets = torch.tensor(geometric_positions(9, 13), dtype=torch.float64), torch.linspace(-5, 5, 21, dtype=torch.float64)

    def cubic(x: Tensor) -> Tensor:
        return 0.1 * x**3 - x**2 + 2

    torch.testing.assert_close(spline_weights(points, targets) @ cubic(points), cubic(targets))


def test_targets_beyond_the_points_are_taken_at_the_border() -> None:
    weights = spline_weights(torch.arange(5.0, dtype=torch.float64), torch.tensor([-1.0, 7.0], dtype=torch.float64))
    torch.testing.assert_close(weights, torch.eye(5, dtype=torch.float64)[[0, 4]], atol=1e-12, rtol=0.0)


@pytest.mark.parametrize("grid", [1, 2])
def test_tiny_tables_can_be_resized(grid: int) -> None:
    rows = (2 * grid - 1) ** 2 + 3
    resized = resize_beit_table(torch.full((rows, 2), 0.25), 3)
    torch.testing.assert_close(resized, torch.full((28, 2), 0.25))


def test_a_table_that_fits_is_left_alone() -> None:
    table, positions = torch.randn(52, 3), torch.randn(1, 17, 8)
    assert resize_beit_table(table, 4) is table
    assert resize_absolute(positions, 4) is positions


def test_extra_rows_and_the_class_token_are_kept() -> None:
    table, positions = torch.randn(52, 3), torch.randn(1, 17, 8)
    assert torch.equal(resize_beit_table(table, 6)[-3:], table[-3:])
    assert torch.equal(resize_absolute(positions, 6)[:, 0], positions[:, 0])


def test_a_table_of_no_square_grid_is_refused() -> None:
    with pytest.raises(UserError, match="50 rows belongs to no square grid"):
        resize_swin_table(torch.zeros(50, 2), 7)


CONFIGS = {
    "beit2": Beit2Config(image_size=32, patch_size=8, width=16, depth=2, heads=2, positions="both"),
    "swin": SwinConfig(image_size=64, patch_size=4, embed_dim=8, width=16, depths=(2, 2), heads=(2, 4), window=4),
    "clip_vit": ClipVitConfig(image_size=32, patch_size=8, width=16, depth=2, heads=2, intermediate=32, local_depth=1),
}


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("beit2", {"image_size": 48}),
        ("beit2", {"image_size": 24}),
        ("clip_vit", {"image_size": 64}),
        ("swin", {"image_size": 96, "window": 6}),
        ("swin", {"image_size": 16, "window": 4}),  # the last stage is smaller than the window
    ],
)
def test_weights_fit_a_model_for_another_resolution(kind: str, change: dict[str, int]) -> None:
    source, target = CONFIGS[kind], CONFIGS[kind].model_copy(update=change)
    state = build_vision(source).state_dict()
    resized = fit_positions({f"vision.{name}": tensor for name, tensor in state.items()}, target)
    build_vision(target).load_state_dict({name.removeprefix("vision."): tensor for name, tensor in resized.items()})
    unchanged = [name for name in state if resized[f"vision.{name}"] is state[name]]
    assert 0 < len(unchanged) < len(state)


def test_a_model_with_more_frames_keeps_its_own_embeddings_of_the_others() -> None:
    read, own = torch.randn(1, 2, 1, 16), torch.randn(1, 3, 1, 16)
    assert torch.equal(resize_frames(read, own), torch.cat([read, own[:, 2:]], dim=1))
    assert torch.equal(resize_frames(own, read), own[:, :2])
    assert resize_frames(own, torch.zeros_like(own)) is own
