"""Pre-training on clips beside images: one stream at a time, and steps without matching."""

import pytest
import torch
from torch import Tensor

from common.labels import NO_MATCHING
from models.tasks.pretrain import Pretraining, StreamObjectives
from task_batches import ALL, pair_batch, small_config


@pytest.fixture(scope="module")
def task() -> Pretraining:
    torch.manual_seed(0)
    config = small_config()
    config = config.model_copy(update={"vision": config.vision.model_copy(update={"frames": 2, "temporal": "attention"})})
    streams = {"videos": StreamObjectives(1.0, ALL), "images": StreamObjectives(1.0, ALL)}
    return Pretraining(config, streams, "exact")


@pytest.fixture(scope="module")
def batches() -> dict[str, dict[str, Tensor]]:
    videos, images = pair_batch(4), pair_batch(4, seed=1)
    return {"videos": videos | {"image": torch.stack([videos["image"], videos["image"].flip(0)], dim=1)}, "images": images}


def gradients(task: Pretraining, turns: list[dict[str, dict[str, Tensor]]]) -> dict[str, Tensor | None]:
    """Of all parameters, after the given streams one after the other, and which of them the last one reaches."""
    for turn in turns:
        task.zero_grad(set_to_none=True) if turn is turns[0] else None
        torch.stack(list(task(turn).values())).sum().backward()
    return {name: None if parameter.grad is None else parameter.grad.clone() for name, parameter in task.named_parameters()}


def test_clips_come_first_and_images_reach_every_parameter(task, batches):
    assert task.turns(batches) == [["videos"], ["images"]]
    alone = gradients(task, [{"images": batches["images"]}])
    assert all(gradient is not None for gradient in alone.values())
    frames = [gradient for name, gradient in alone.items() if name.startswith("model.frames")]
    assert frames
    assert all((gradient == 0).all() for gradient in frames if gradient is not None)
    in_turn = gradients(task, [{name: batches[name]} for name in batches])
    together = gradients(task, [batches])
    for name, gradient in in_turn.items():
        torch.testing.assert_close(gradient, together[name])


def test_a_step_without_matching_costs_no_loss_and_trains_the_rest(task, batches):
    marked = {name: batch | {NO_MATCHING: torch.empty(0)} for name, batch in batches.items()}
    losses, usual = task(marked), task(batches)
    assert losses.keys() == usual.keys()
    assert losses["images/itm"] == losses["videos/itm"] == 0
    assert usual["images/itm"] > 0
    torch.testing.assert_close(losses["images/mlm"], usual["images/mlm"])
    found = gradients(task, [marked])
    assert all(gradient is not None for gradient in found.values())
    head = [gradient for name, gradient in found.items() if name.startswith("model.itm_head")]
    assert all((gradient == 0).all() for gradient in head if gradient is not None)
