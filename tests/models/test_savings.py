"""Ways of computing less change no loss and no gradient."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from common.labels import HOLE
from models.attention import AttentionKind, use_attention
from models.config import ModelConfig, Savings
from models.objectives.matching import hard_negatives, hard_negatives_one_by_one
from models.packing import Packing
from models.tasks.pretrain import Pretraining, StreamObjectives
from models.vlm import VisionLanguageModel
from task_batches import ALL, LENGTH, pair_batch, small_config

OBJECTIVES = {"images": StreamObjectives(1.0, ALL), "regions": StreamObjectives(0.5, {**ALL, "box": 1.0})}
LENGTHS = torch.tensor([6, 3, 5, 2, 6, 4])


def batches(packed: bool) -> dict[str, dict[str, Tensor]]:
    """Pairs and regions, with texts of different lengths."""
    found = {"images": pair_batch(len(LENGTHS), 1), "regions": pair_batch(len(LENGTHS), 2, regions=True)}
    for batch in found.values():
        batch["text_mask"] = torch.arange(LENGTH) < LENGTHS[:, None]
        batch["masked_positions"] = batch["masked_positions"].minimum(LENGTHS[:, None] - 1)
        if packed:
            places = batch["text_mask"].flatten().nonzero().squeeze(1)
            batch["text_bins"] = torch.cat([places, torch.full((6,), HOLE)])[None]
    return found


def config(savings: Savings, dropout: float = 0.0) -> ModelConfig:
    return small_config(dropout).model_copy(update={"savings": savings})


def losses_and_gradients(savings: Savings, packed: bool = False, kind: AttentionKind = "fused") -> dict[str, Tensor]:
    torch.manual_seed(0)
    task = Pretraining(config(savings), OBJECTIVES, "exact").double()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in task.named_parameters():
        if name != "model.temperature":
            torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    use_attention(task, kind)
    losses = task(batches(packed))
    torch.stack(list(losses.values())).sum().backward()
    return {name: loss.detach() for name, loss in losses.items()} | {
        name: parameter.grad for name, parameter in task.named_parameters() if parameter.grad is not None
    }


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-11, msg=lambda text: f"{name}: {text}")  # noqa: B023


@pytest.fixture(scope="module")
def saved() -> dict[str, Tensor]:
    """With all savings, texts not packed."""
    return losses_and_gradients(Savings())


@pytest.mark.parametrize("name", list(Savings.model_fields))
def test_without_a_saving_losses_and_gradients_are_the_same(saved: dict[str, Tensor], name: str) -> None:
    assert_same(losses_and_gradients(Savings.model_validate({name: False})), saved)


def test_packed_texts_have_the_losses_and_gradients_of_padded_ones(saved: dict[str, Tensor]) -> None:
    assert_same(losses_and_gradients(Savings(), packed=True), saved)


def test_plain_products_are_fused_attention(saved: dict[str, Tensor]) -> None:
    assert_same(losses_and_gradients(Savings(), kind="math"), saved)


def test_everything_off_is_everything_on(saved: dict[str, Tensor]) -> None:
    off = Savings.model_validate(dict.fromkeys(Savings.model_fields, False))
    assert_same(losses_and_gradients(off), saved)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_text_encoders_read_packed_texts_as_they_read_padded_ones(kind: str) -> None:
    text = small_config().text.model_copy(update={"kind": kind, "pad_token_id": 1 if kind == "roberta" else 0})
    model = VisionLanguageModel(small_config().model_copy(update={"text": text}), ["itc"]).double().eval()
    mask = torch.arange(LENGTH) < LENGTHS[:, None]
    ids = torch.randint(5, 40, mask.shape, generator=torch.Generator().manual_seed(3)) * mask + ~mask * text.pad_token_id
    places = mask.flatten().nonzero().squeeze(1)
    first, second = places[places >= 3 * LENGTH], places[places < 3 * LENGTH]  # texts 3 to 5, then 0 to 2
    width = max(len(first), len(second)) + 2
    bins = torch.stack([torch.cat([part, torch.full((width - len(part),), HOLE)]) for part in (first, second)])
    with torch.no_grad():
        packed, padded = model.encode_text(ids, mask, Packing(bins, *mask.shape)), model.encode_text(ids, mask)
    torch.testing.assert_close(packed, padded * mask[:, :, None])


def test_negatives_drawn_row_by_row_are_those_drawn_at_once() -> None:
    generator = torch.Generator().manual_seed(0)
    similarity, draws = torch.randn(40, 40, generator=generator), torch.rand(40, generator=generator)
    same = torch.rand(40, 40, generator=generator) < 0.2
    same[7] = True  # a row without any negative
    at_once, one_by_one = hard_negatives(similarity, same, draws), hard_negatives_one_by_one(similarity, same, draws)
    assert torch.equal(at_once[1], one_by_one[1])
    assert torch.equal(at_once[0][at_once[1]], one_by_one[0][one_by_one[1]])
