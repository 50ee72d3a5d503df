"""Row counts are what the losses divide by."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

import models.objectives.box
import models.objectives.masked_image
import models.objectives.masked_lm
import models.objectives.matching
from common.distributed import GradientMode, mean_of_rows
from models.config import ModelConfig
from models.tasks.grounding import Grounding
from models.tasks.retrieval import Retrieval
from task_batches import ALL, pair_batch, pretraining, small_config, text_pairs

OBJECTIVES = (models.objectives.box, models.objectives.masked_image, models.objectives.masked_lm, models.objectives.matching)


@pytest.mark.parametrize(
    ("objectives", "batch"),
    [
        ({"itm": 1.0}, pair_batch(5)),
        ({"mlm": 1.0}, pair_batch(5)),
        ({"text_mlm": 1.0}, pair_batch(5)),
        ({"box": 1.0}, pair_batch(5, regions=True)),
        ({"mim": 1.0}, pair_batch(5) | {"patch_hidden": torch.tensor([[True, False, True, True]] * 5)}),
        ({"ttm": 1.0}, text_pairs(5)),
        ({"tlm": 1.0, "ttc": 1.0}, text_pairs(5)),
    ],
    ids=lambda value: "+".join(value) if "itm" not in value and len(value) < 3 else None,
)
def test_counts_are_those_of_the_losses(objectives: dict[str, float], batch: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []

    def noting(total: Tensor, count: Tensor, mode: GradientMode) -> Tensor:
        used.append(int(count))
        return mean_of_rows(total, count, mode)

    for module in OBJECTIVES:
        monkeypatch.setattr(module, "mean_of_rows", noting)
    task = pretraining({"stream": objectives})
    losses = task({"stream": batch})
    counts = task.row_counts({"stream": batch})
    assert sorted(int(count) for count in counts.values()) == sorted(used)
    assert used
    assert 0 not in used
    assert counts.keys() <= losses.keys()
    assert counts.keys() == {name for name in losses if not name.endswith(("itc", "ttc"))}


def test_published_means_are_those_of_each_micro_batch() -> None:
    task = pretraining({"stream": ALL})
    task.mode = "paper"
    assert task.row_counts({"stream": pair_batch(4)}) == {}


def test_every_task_counts_its_rows() -> None:
    config: ModelConfig = small_config()
    regions: Mapping[str, Mapping[str, Tensor]] = {"train": pair_batch(6, regions=True)}
    grounding = Grounding(config, {"box_l1": 1.0, "box_giou": 1.0}, "exact")
    assert grounding.row_counts(regions) == {"train/box_l1": 4, "train/box_giou": 4}
    assert Retrieval(config, {"itc": 1.0, "itm": 1.0}, "exact").row_counts(regions) == {"train/itm": 18}
    assert Retrieval(config, {"itc": 1.0, "itm": 1.0}, "paper").row_counts(regions) == {}
