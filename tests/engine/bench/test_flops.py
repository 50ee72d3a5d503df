"""Counted operations against a count by hand."""

from pathlib import Path

import torch

from bench_request import bench_request
from engine.bench.batches import make_supply
from engine.bench.flops import FlopCount
from engine.tasks import make_task


def layer(tokens: int, width: int, inner: int) -> int:
    """Query, key, value and output of self-attention, and the MLP, of all tokens."""
    return 2 * tokens * (4 * width * width + 2 * width * inner)


def attention(queries: int, keys: int, width: int) -> int:
    """Scores and mixing."""
    return 2 * 2 * queries * keys * width


def test_count_of_a_grounding_step_is_that_by_hand(tmp_path: Path) -> None:
    request = bench_request(tmp_path, task="grounding", fixed_length=8)
    supply = make_supply(request, 1)
    next(supply)
    counted = FlopCount(request.config).count(supply.shapes[0])
    rows, width, inner, length, patches, pixels = 8, 16, 32, 8, 16, 8 * 8 * 3
    patch_embedding = 2 * rows * patches * pixels * width
    tokens = patches + 1
    vision = rows * (layer(tokens, width, 4 * width) + attention(tokens, tokens, width))
    # the texts lie packed in one row, whose attention compares all their tokens
    text = rows * layer(length, width, inner) + attention(rows * length, rows * length, width)
    context = rows * 2 * tokens * 2 * width * width
    # the only fusion layer is the last: keys and values of all tokens, everything else of position 0
    own = 2 * (2 * length * width * width + 2 * width * width) + attention(1, length, width)
    cross = 2 * 2 * width * width + attention(1, tokens, width)
    fusion = rows * (own + cross + 2 * 2 * width * inner)
    head = rows * 2 * (width * 2 * width + 2 * width * 4)
    forward = {"vision": patch_embedding + vision, "context": context, "text": text, "fusion: box": fusion, "heads and losses": head}
    assert {name: counted[name] for name in forward} == forward
    # two products for the gradients of each product; the images need none
    assert counted["backward"] == 2 * sum(forward.values()) - patch_embedding


def test_negatives_drawn_one_by_one_are_counted_as_those_drawn_at_once(tmp_path: Path) -> None:
    """Which they are is content, and there is none."""
    request = bench_request(tmp_path)
    supply = make_supply(request, 1)
    next(supply)
    savings = request.config.model.savings.model_copy(update={"batched_negatives": False})
    model = request.config.model.model_copy(update={"savings": savings})
    one_by_one = FlopCount(request.config.model_copy(update={"model": model}))
    assert not one_by_one.task.model.config.savings.batched_negatives
    assert one_by_one.count(supply.shapes[0]) == FlopCount(request.config).count(supply.shapes[0])


def test_counting_leaves_later_steps_with_real_numbers(tmp_path: Path) -> None:
    request = bench_request(tmp_path)
    supply = make_supply(request, 1)
    loaded = next(supply)
    assert FlopCount(request.config).count(supply.shapes[0])["backward"] > 0
    losses = make_task(request.config)({name: batch.tensors for name, batch in loaded.items()})
    assert all(torch.isfinite(loss) for loss in losses.values())
