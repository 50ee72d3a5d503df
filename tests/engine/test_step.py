"""Accumulated micro-batches are one step over the whole batch."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from common.labels import IGNORED
from dataset.batches import StreamBatch
from engine.config.engine_settings import EngineSettings
from engine.faults import FaultCounter
from engine.meters import Clock
from engine.step import ContrastOver, Stepper
from engine.strategies.base import join_group
from engine.strategies.replicated import Replicated
from models.tasks.pretrain import Pretraining
from models.vlm import TEMPERATURE_RANGE
from task_batches import ALL, pair_batch, pretraining, split

STREAMS = {"images": ALL, "regions": {**ALL, "box": 1.0}}
ROWS = 8
"""Two rows of each text hide as many tokens, and one in three has no box: micro-batches differ in the rows of a loss."""


def batches() -> dict[str, dict[str, Tensor]]:
    return {"images": pair_batch(ROWS, 1), "regions": pair_batch(ROWS, 2, regions=True)}


def one_step(
    task: Pretraining,
    whole: Mapping[str, Mapping[str, Tensor]],
    accumulation: int,
    over: ContrastOver = "batch",
    settings: EngineSettings | None = None,
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Numbers of one step, and the weights after it."""
    loaded = [{name: StreamBatch(part, name, ROWS) for name, part in micro.items()} for micro in split(whole, accumulation)]
    source: Iterator[dict[str, StreamBatch]] = iter(loaded)
    strategy = Replicated(settings or EngineSettings(), clip_norm=None, timeout=None)
    strategy.prepare(task, torch.optim.SGD(task.parameters(), lr=0.1))
    stepper = Stepper(strategy, accumulation, over)
    torch.manual_seed(5)
    numbers = stepper.step(source, Clock(), FaultCounter(Path("unused"), 1.0))
    assert next(source, None) is None
    return {name: float(value) for name, value in numbers.items()}, dict(task.state_dict())


@pytest.mark.parametrize("accumulation", [2, 4])
def test_accumulation_gives_the_losses_gradient_norm_and_weights_of_one_batch(accumulation: int) -> None:
    expected, weights = one_step(pretraining(STREAMS), batches(), 1)
    numbers, found = one_step(pretraining(STREAMS), batches(), accumulation)
    assert numbers == pytest.approx(expected, rel=1e-5)
    for name, value in weights.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5, msg=lambda text: f"{name}: {text}")  # noqa: B023


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_streams_in_turn_give_the_step_of_all_together(monkeypatch: pytest.MonkeyPatch, dropout: float) -> None:
    together, weights = one_step(pretraining(STREAMS, dropout), batches(), 2, settings=EngineSettings(streams="together"))
    seen: list[list[str]] = []
    losses = Replicated.losses
    monkeypatch.setattr(Replicated, "losses", lambda self, batch, contrast: seen.append(list(batch)) or losses(self, batch, contrast))
    numbers, found = one_step(pretraining(STREAMS, dropout), batches(), 2)
    assert seen == [["images", "regions"]] * 2 + [["images"], ["regions"]] * 2  # features of the whole step first
    assert numbers == pytest.approx(together, rel=1e-5)
    for name, value in weights.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6, msg=lambda text: f"{name}: {text}")  # noqa: B023


def test_streams_in_turn_are_differentiated_in_a_group_of_one_process_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the one that is left of several: its model is wrapped like theirs."""
    expected, _ = one_step(pretraining(STREAMS), batches(), 1)
    join_group(None)
    try:
        monkeypatch.setattr(Accelerator, "prepare_model", lambda _, model: DistributedDataParallel(model))
        numbers, _ = one_step(pretraining(STREAMS), batches(), 1)
    finally:
        torch.distributed.destroy_process_group()
    assert numbers == pytest.approx(expected, rel=1e-5)


def test_streams_stay_together_where_the_last_one_leaves_parameters_out() -> None:
    whole = batches()
    assert pretraining(STREAMS).turns(whole) == [["images"], ["regions"]]
    reversed_ = dict(reversed(whole.items()))
    assert pretraining(STREAMS).turns(reversed_) == [["regions", "images"]]  # images have no boxes
    assert pretraining({"images": {"itc": 1.0}, "regions": {"itc": 1.0}}).turns(whole) == [["images", "regions"]]  # nothing is fused
    without_contrast = pretraining({"images": {"itc": 1.0, "itm": 1.0}, "regions": {"itm": 1.0}})
    assert without_contrast.turns(whole) == [["images", "regions"]]  # matching looks at contrastive features and does not train them


def test_micro_batches_in_published_mode_average_their_own_rows() -> None:
    task, whole = pretraining(STREAMS), batches()
    task.mode = "paper"
    numbers, _ = one_step(task, whole, 4)
    alone = [one_step(pretraining(STREAMS), micro, 1)[0] for micro in split(whole, 4)]
    assert numbers["images/mlm"] == pytest.approx(sum(each["images/mlm"] for each in alone) / 4, rel=1e-5)
    expected, _ = one_step(pretraining(STREAMS), whole, 1)
    assert numbers["images/mlm"] != pytest.approx(expected["images/mlm"], rel=1e-3)
    assert numbers["images/itc"] == pytest.approx(expected["images/itc"], rel=1e-5)  # the pairs of the step, as in either mode


def test_contrast_within_micro_batches_is_the_mean_of_theirs() -> None:
    whole = batches()
    numbers, _ = one_step(pretraining(STREAMS), whole, 2, "micro")
    alone = [one_step(pretraining(STREAMS), micro, 1)[0] for micro in split(whole, 2)]
    assert numbers["images/itc"] == pytest.approx(sum(each["images/itc"] for each in alone) / 2, rel=1e-5)


def test_losses_without_rows_are_zero_and_leave_the_weights_finite() -> None:
    whole = batches()
    whole["regions"]["is_image"].fill_(True)
    whole["regions"]["mlm_labels"].fill_(IGNORED)
    numbers, weights = one_step(pretraining(STREAMS), whole, 2)
    assert [numbers[f"regions/{name}"] for name in ("mlm", "box_l1", "box_giou")] == [0, 0, 0]
    assert all(value.isfinite().all() for value in weights.values())
    assert math.isfinite(numbers["gradient_norm"])


def test_losses_of_one_micro_batch_alone_weigh_as_in_the_whole_batch() -> None:
    whole = batches()
    whole["regions"]["is_image"] = torch.arange(ROWS) != ROWS - 1  # one box, in the last micro-batch
    expected, _ = one_step(pretraining(STREAMS), whole, 1)
    numbers, _ = one_step(pretraining(STREAMS), whole, 4)
    assert numbers == pytest.approx(expected, rel=1e-5)


def test_dropout_does_not_keep_a_step_from_being_repeated() -> None:
    first, weights = one_step(pretraining(STREAMS, dropout=0.2), batches(), 2)
    second, found = one_step(pretraining(STREAMS, dropout=0.2), batches(), 2)
    assert first == second
    assert all(torch.equal(found[name], value) for name, value in weights.items())


def test_tasks_that_contrast_nothing_take_one_pass() -> None:
    task = pretraining({"images": {"itm": 1.0, "mlm": 1.0}})
    passes: list[int] = []
    task.register_forward_pre_hook(lambda *_: passes.append(1))
    one_step(task, {"images": pair_batch(4)}, 2)
    assert len(passes) == 2


@pytest.mark.parametrize(("given", "used"), [(9.0, TEMPERATURE_RANGE[1]), (-1.0, TEMPERATURE_RANGE[0]), (0.3, 0.3)])
def test_the_temperature_is_in_its_range_before_every_step(given: float, used: float) -> None:
    task = pretraining({"images": {"itc": 1.0}})
    expected = pretraining({"images": {"itc": 1.0}})
    for each, value in ((task, given), (expected, used)):
        torch.nn.init.constant_(each.model.temperature, value)
    whole = {"images": pair_batch(4)}
    assert one_step(task, whole, 1)[0] == one_step(expected, whole, 1)[0]
