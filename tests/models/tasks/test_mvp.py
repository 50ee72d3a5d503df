"""MVP's objectives on a batch."""

import pytest
import torch
from torch import Tensor

from common.labels import IGNORED
from models.mvp.config import MvpLearning
from models.mvp.model import MVP_HEADS, Mvp
from models.tasks.mvp import MVP_OBJECTIVES, mvp_losses, mvp_states
from mvp_batches import SMALL, mvp_batch

HARD = MvpLearning(grounding="hard")


@pytest.fixture
def model() -> Mvp:
    torch.manual_seed(0)
    return Mvp(SMALL, MVP_HEADS).eval()


def summed(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def test_every_encoder_runs_once_and_every_parameter_learns(model: Mvp) -> None:
    calls: list[str] = []
    for name in ("text_encoder", "vision_encoder", "joint_encoder"):
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.append(name))
    losses = mvp_losses(model, mvp_batch(6), MVP_OBJECTIVES, HARD, "exact")
    assert set(losses) == set(MVP_OBJECTIVES)
    summed(losses).backward()
    assert calls == ["text_encoder", "vision_encoder", "joint_encoder"]
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.isfinite().all()] == []


@pytest.mark.parametrize("grounding", ["sample", "hard"])
def test_grounding_teaches_both_sides_phrases_and_regions_but_not_padding(model: Mvp, grounding: str) -> None:
    batch = mvp_batch(4)
    batch["regions"].requires_grad_()
    learning = MvpLearning(grounding="hard" if grounding == "hard" else "sample", margin=2.5)  # no row is satisfied
    mvp_losses(model, batch, ["phrase_grounding"], learning, "exact")["phrase_grounding"].backward()
    for encoder in (model.text_encoder, model.vision_encoder):
        weight = encoder.get_parameter("layers.0.output.dense.weight")
        assert weight.grad is not None and weight.grad.any()
    words, regions = model.embeddings.words.weight.grad, batch["regions"].grad
    assert words is not None and regions is not None
    assert words[batch["text_ids"][batch["phrase_mask"]]].abs().sum(dim=1).min() > 0
    assert regions[batch["region_mask"]].any()
    assert not regions[~batch["region_mask"]].any()


def test_wrong_pairs_are_half_wrong_images_half_wrong_texts_and_stay_within_groups(model: Mvp) -> None:
    batch = mvp_batch(8)
    batch["group"] = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    batch["sample_ids"] = torch.tensor([0, 0, 1, 2, 3, 4, 5, 6])
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        batch |= {"side_draws": torch.rand(8, generator=generator), "negative_draws": torch.rand(8, 2, generator=generator)}
        for learning in (MvpLearning(), MvpLearning(negatives="sampled")):
            wrong = mvp_states(model, batch, ["itm"], learning).wrong
            assert wrong is not None
            rows = torch.arange(8)
            assert wrong.valid.all()
            assert ((wrong.text == rows) ^ (wrong.image == rows)).all()
            assert (wrong.text == rows).view(2, 4).sum(dim=1).tolist() == [2, 2]
            assert (batch["group"][wrong.text] == batch["group"][wrong.image]).all()
            assert (batch["sample_ids"][wrong.text] != batch["sample_ids"][wrong.image]).all()


def test_losses_do_not_depend_on_the_order_of_the_rows(model: Mvp) -> None:
    batch = mvp_batch(6)
    order = torch.tensor([4, 1, 5, 0, 3, 2])
    shuffled = {name: values[order] for name, values in batch.items()}
    expected = mvp_losses(model, batch, MVP_OBJECTIVES, HARD, "exact")
    found = mvp_losses(model, shuffled, MVP_OBJECTIVES, HARD, "exact")
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss, msg=lambda text, name=name: f"{name}: {text}")


def test_losses_follow_from_the_batch_alone(model: Mvp) -> None:
    sampled = MvpLearning(negatives="sampled")
    first = mvp_losses(model, mvp_batch(6), MVP_OBJECTIVES, sampled, "exact")
    torch.manual_seed(99)
    second = mvp_losses(model, mvp_batch(6), MVP_OBJECTIVES, sampled, "exact")
    assert all(torch.equal(first[name], second[name]) for name in MVP_OBJECTIVES)
    other = {**mvp_batch(6), "grounding_draws": 1 - mvp_batch(6)["grounding_draws"]}
    assert mvp_losses(model, other, MVP_OBJECTIVES, sampled, "exact")["phrase_grounding"] != first["phrase_grounding"]


@pytest.mark.parametrize("grounding", ["sample", "hard"])
def test_a_single_row_has_nothing_wrong_to_compare_with(model: Mvp, grounding: str) -> None:
    losses = mvp_losses(model, mvp_batch(1), MVP_OBJECTIVES, HARD if grounding == "hard" else MvpLearning(), "exact")
    assert losses["phrase_grounding"] == 0
    summed(losses).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_batch_without_labels_or_phrases_gives_zeros_that_keep_the_graph(model: Mvp) -> None:
    batch = mvp_batch(4)
    batch |= {name: torch.full_like(batch[name], IGNORED) for name in ("mlm_labels", "tag_labels", "answers")}
    batch["phrase_mask"] = torch.zeros_like(batch["phrase_mask"])
    losses = mvp_losses(model, batch, MVP_OBJECTIVES, MvpLearning(), "exact")
    assert [name for name, loss in losses.items() if loss == 0] == ["concepts", "mlm", "phrase_grounding", "qa"]
    summed(losses).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_the_layer_that_is_compared_can_be_chosen(model: Mvp) -> None:
    def loss(layer: int) -> Tensor:
        learning = MvpLearning(grounding_layer=layer, margin=2.5)
        return mvp_losses(model, mvp_batch(4), ["phrase_grounding"], learning, "exact")["phrase_grounding"]

    assert loss(1) == loss(-1) != loss(0)


def test_joint_states_are_computed_only_where_an_objective_needs_them(model: Mvp) -> None:
    states = mvp_states(model, mvp_batch(3), ["concepts", "itc"], MvpLearning())
    assert states.positive is None and states.wrong is None
    states = mvp_states(model, mvp_batch(3), ["mlm", "phrase_grounding"], MvpLearning())
    assert states.positive is not None and states.negative is None


def test_eight_pairs_are_told_apart_after_a_few_steps() -> None:
    torch.manual_seed(0)
    model, batch = Mvp(SMALL, MVP_HEADS), mvp_batch(8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses: dict[str, Tensor] = {}
    for _ in range(120):
        losses = mvp_losses(model, batch, MVP_OBJECTIVES, MvpLearning(), "exact")
        optimizer.zero_grad()
        summed(losses).backward()
        optimizer.step()
    assert {name for name, loss in losses.items() if loss > 0.2} <= {"itm"}
    assert losses["itm"] < 0.5  # log 2 is chance
