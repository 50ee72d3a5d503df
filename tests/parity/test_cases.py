"""This project computes what the official code computed, on every recorded case of a class that it has."""

import json
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from models import attention
from models.packing import Packing
from models.tasks import losses
from models.tasks.base import Batch
from models.vlm import VisionLanguageModel
from parity.check import check_case, find_cases
from recorded import FIXTURES, GOLDEN

TASKS = ("retrieval", "bbox", "grounding", "captioning", "generation")
"""Parts of official modules of fine-tuning."""


def every_case() -> list[Path]:
    """The small cases, and where they are there the others."""
    cases = find_cases([FIXTURES])
    names = {case.name for case in cases}
    return cases + [case for case in (find_cases([GOLDEN]) if GOLDEN.is_dir() else []) if case.name not in names]


def is_task(folder: Path) -> bool:
    """Whether a case is of a fine-tuning class, which this project may not have yet."""
    file = folder / "config.json"
    if not file.is_file():
        return False
    recorded = json.loads(file.read_text())
    module = recorded["official_class"].rsplit(".", 1)[0]
    head = recorded["official_class"].rsplit(".", 1)[1]
    if "vqa" in recorded["official_class"].lower():
        return False
    return any(task in module for task in TASKS) or (recorded["repo"] == "mvp_pytorch" and not head.endswith("PreTraining"))


@pytest.mark.parametrize("folder", every_case(), ids=lambda folder: folder.name)
def test_every_recorded_tensor_is_met(folder: Path) -> None:
    report = check_case(folder)
    assert not report.problem
    assert [f"{failure.scenario}/{failure.name} {failure.dtype}" for failure in report.failures] == []
    if not is_task(folder):
        assert report.status == "passed"
        assert report.title == "functions" or not report.uncovered


class PackedTexts(losses.Encoded):
    """Every batch with its texts packed."""

    def __init__(self, model: VisionLanguageModel, batch: Batch, *rest: Any, **named: Any) -> None:
        super().__init__(model, {**batch, "text_bins": Packing.of(batch["text_mask"]).bins}, *rest, **named)


@pytest.mark.parametrize("name", ["xvlm_pretrain_clip_sharp", "x2vlm_pretrain_sharp", "x2vlm_pretrain_video"])
def test_recorded_losses_and_gradients_are_met_with_packed_texts_and_plain_attention(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = {case.name: case for case in every_case()}
    if name not in cases:
        pytest.skip("the recording is not here")
    attend = attention.attend

    def plain(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, dropout: float, kind: str) -> Tensor:
        return attend(queries, keys, values, mask, dropout, "math")

    monkeypatch.setattr(losses, "Encoded", PackedTexts)
    monkeypatch.setattr(attention, "attend", plain)
    report = check_case(cases[name])
    # recordings hold states of padding, which means nothing and is not computed here
    assert {failure.name.split("/")[-1].split(".")[0] for failure in report.failures} <= {"text_embeds", "cross_embeds"}
    assert not report.problem
