"""Contrast over the micro-batches of a step: the loss and the gradients of the whole batch."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from common.distributed import GradientMode
from models.tasks.contrast import Collecting, Replaying, replaying
from models.tasks.pretrain import Pretraining
from task_batches import ALL, pair_batch, pretraining, split, text_pairs

Batches = Mapping[str, Mapping[str, Tensor]]


def collect(task: Pretraining, micros: list[dict[str, dict[str, Tensor]]]) -> list[Collecting]:
    collected = [Collecting(f"seed/{index}") for index in range(len(micros))]
    with torch.no_grad():
        for contrast, micro in zip(collected, micros, strict=True):
            task(micro, contrast)
    return collected


def gradients(task: Pretraining, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of the sum of the losses, for all parameters; 0 where there is none."""
    named = dict(task.named_parameters())
    found = torch.autograd.grad(torch.stack(list(losses.values())).sum(), list(named.values()), allow_unused=True)
    return {name: torch.zeros_like(value) if part is None else part for (name, value), part in zip(named.items(), found, strict=True)}


def accumulated(task: Pretraining, batches: Batches, parts: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses and gradients as an accumulating engine takes them: means over the micro-batches."""
    micros = split(batches, parts)
    losses: dict[str, Tensor] = {}
    total: dict[str, Tensor] = {}
    for contrast, micro in zip(replaying(collect(task, micros)), micros, strict=True):
        computed = task(micro, contrast)
        for name, part in gradients(task, computed).items():
            total[name] = total.get(name, 0) + part / parts
        for name, value in computed.items():
            losses[name] = losses.get(name, 0) + value.detach() / parts
    return losses, total


@pytest.mark.parametrize("parts", [2, 3, 6])
@pytest.mark.parametrize(
    ("objectives", "batch"),
    [({"itc": 1.0}, pair_batch(6)), ({"itc": 1.0, "ttc": 1.0}, pair_batch(6)), ({"ttc": 1.0}, text_pairs(6))],
    ids=["images", "second captions", "parallel text"],
)
def test_micro_batches_contrast_the_whole_step(objectives: dict[str, float], batch: dict[str, Tensor], parts: int) -> None:
    task = pretraining({"stream": objectives})
    direct = task({"stream": batch})
    expected = gradients(task, direct)
    losses, found = accumulated(task, {"stream": batch}, parts)
    torch.testing.assert_close(losses, {name: value.detach() for name, value in direct.items()})
    assert expected["model.temperature"].abs() > 0.1
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=lambda text: f"{name}: {text}")  # noqa: B023


class Watching(Replaying):
    """Keeps the features that it is asked to contrast."""

    def __init__(self, replayed: Replaying) -> None:
        super().__init__(replayed.seed, list(replayed.shares))
        self.seen: list[Tensor] = []

    def __call__(self, image: Tensor, text: Tensor, temperature: Tensor, ids: Tensor | None, mode: GradientMode) -> Tensor:
        self.seen += [image.detach(), text.detach()]
        return super().__call__(image, text, temperature, ids, mode)


def test_replayed_features_are_the_collected_ones_with_dropout_and_all_streams() -> None:
    streams = {"images": ALL, "regions": {**ALL, "box": 1.0}, "texts": {"ttc": 1.0, "ttm": 1.0, "mlm": 1.0, "tlm": 1.0}}
    task = pretraining(streams, dropout=0.1)
    micros = split({"images": pair_batch(4, 1), "regions": pair_batch(4, 2, regions=True), "texts": text_pairs(4, 3)}, 2)
    collected = collect(task, micros)
    assert not torch.equal(collected[0].calls[0].text, collect(task, micros[::-1])[1].calls[0].text)  # another seed: other draws
    for cached, contrast, micro in zip(collected, replaying(collected), micros, strict=True):
        torch.rand(3)  # what is drawn in between does not matter
        watching = Watching(contrast)
        task(micro, watching)
        # without gradients other kernels may be chosen: equal to rounding, where other draws would change the second digit
        torch.testing.assert_close(watching.seen, [value for call in cached.calls for value in call[:2]], rtol=1e-5, atol=1e-6)


def test_collecting_runs_neither_fusion_nor_streams_without_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    task = pretraining({"matched": {"itm": 1.0, "mlm": 1.0}, "images": ALL})
    monkeypatch.setattr(task.model, "fuse", lambda *_: pytest.fail("fused"))
    monkeypatch.setattr(task.model, "context", lambda *_: pytest.fail("projected for the fusion encoder"))
    encoded: list[int] = []
    encode = task.model.encode_images
    monkeypatch.setattr(task.model, "encode_images", lambda images: encoded.append(len(images)) or encode(images))
    (collected,) = collect(task, [{"matched": pair_batch(2), "images": pair_batch(4)}])
    assert encoded == [4]
    assert len(collected.calls) == 1
    assert not collected.calls[0].image.requires_grad


def test_tasks_say_whether_they_contrast() -> None:
    assert pretraining({"a": {"itm": 1.0}, "b": ALL}).contrasts
    assert not pretraining({"a": {"itm": 1.0, "mlm": 1.0}}).contrasts


def test_single_pairs_of_one_step_are_contrasted_with_one_another() -> None:
    task = pretraining({"images": {"itc": 1.0}})
    losses, _ = accumulated(task, {"images": pair_batch(2) | {"sample_ids": torch.arange(2)}}, 2)
    assert losses["images/itc"] > 0.01
    alone, found = accumulated(task, {"images": pair_batch(1)}, 1)
    assert alone["images/itc"] == 0
    assert all((gradient == 0).all() for gradient in found.values())


def test_a_frozen_temperature_is_left_alone() -> None:
    task = pretraining({"images": {"itc": 1.0}})
    task.model.temperature.requires_grad_(False)
    micros = split({"images": pair_batch(4)}, 2)
    for contrast, micro in zip(replaying(collect(task, micros)), micros, strict=True):
        task(micro, contrast)["images/itc"].backward()
    assert task.model.temperature.grad is None
    assert task.model.get_parameter("text_proj.weight").grad is not None
