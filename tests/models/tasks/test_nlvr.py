"""Statements about two images: both fusions, weights that they start from, and text assignment."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from common.errors import UserError
from common.labels import IGNORED
from models.checkpoints import load_checkpoint
from models.checkpoints.load import check_checkpoint
from models.config import FusionConfig
from models.context import SharedView
from models.fusion import Group, Layout
from models.packing import Rows
from models.tasks.nlvr import AlternatingPairs, ConcatenatedPairs, Nlvr, PairFusion, TextAssignment, assign_images, predict_statements
from models.vlm import VisionLanguageModel
from task_batches import pair_batch, small_config

CONFIG = small_config().model_copy(update={"fusion": FusionConfig(layers=2)})
ROWS = 3


def spread(model: torch.nn.Module) -> None:
    for number, parameter in enumerate(model.parameters()):
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(number))


def statements(rows: int = ROWS) -> dict[str, Tensor]:
    batch = pair_batch(2 * rows)
    texts = {name: batch[name][:rows] for name in ("text_ids", "text_mask")}
    return {"image": batch["image"], "label": torch.arange(rows) % 2, **texts}


@pytest.mark.parametrize("model", [ConcatenatedPairs(CONFIG), AlternatingPairs(CONFIG)], ids=["concatenated", "alternating"])
def test_both_images_and_their_order_matter(model: ConcatenatedPairs | AlternatingPairs) -> None:
    spread(model.eval())
    batch = statements()
    first, second = batch["image"].split(ROWS)
    given = [torch.cat(pair) for pair in ((first, second), (second, first), (first, first))]
    answers = [predict_statements(model, images, batch["text_ids"], batch["text_mask"]) for images in given]
    assert answers[0].shape == (ROWS,)
    assert not torch.allclose(answers[0], answers[1]) and not torch.allclose(answers[0], answers[2])


def test_layers_of_a_pair_look_at_one_image_each_through_the_same_projections() -> None:
    model = AlternatingPairs(CONFIG).eval()
    spread(model)
    batch = statements()
    tokens, text = model.encode_images(batch["image"]), model.encode_text(batch["text_ids"], batch["text_mask"])
    states, layers = text.flatten(0, 1), model.fusion.blocks()
    layout = Layout(Rows(ROWS, text.shape[1]), batch["text_mask"][:, None, None], (Group(1, ROWS, None, False),))
    for number, layer in enumerate(layers):
        states = layer.attend_to_text(states, layout)
        keys, values = layers[number // 2 * 2].project(tokens.split(ROWS)[number % 2])
        states = layer.feed_forward(layer.attend_to_vision(states, layout, SharedView(keys, values, None, None, None, None)))
    torch.testing.assert_close(model.fuse_pairs(tokens, text, batch["text_mask"]), states.unflatten(0, (ROWS, -1))[:, 0])


def test_each_fusion_layer_of_a_pre_training_file_serves_as_two(tmp_path: Path) -> None:
    single = VisionLanguageModel(CONFIG, ("itc", "itm"))
    spread(single)
    save_file(single.state_dict(), tmp_path / "pretrained.safetensors")
    model = AlternatingPairs(CONFIG)
    coverage = load_checkpoint(model, tmp_path / "pretrained.safetensors", ["cls_head*"])
    assert {name.split(".")[0] for name in coverage.new} == {"cls_head"}
    ours, theirs = model.state_dict(), single.state_dict()
    for name in ("self_attention.key.weight", "cross_attention.query.weight", "mlp_norm.bias"):
        for layer in range(4):
            assert torch.equal(ours[f"fusion.layers.{layer}.{name}"], theirs[f"fusion.layers.{layer // 2}.{name}"])
    assert torch.equal(ours["fusion.layers.2.cross_attention.key.weight"], theirs["fusion.layers.1.cross_attention.key.weight"])
    assert "fusion.layers.3.cross_attention.key.weight" not in ours


def with_copies(model: AlternatingPairs) -> dict[str, Tensor]:
    """As official files hold pairs: the second layer with copies of what it shares."""
    state = model.state_dict()
    shared = [name for name in state if ".cross_attention.key." in name or ".cross_attention.value." in name]
    for name in shared:
        layer = int(name.split(".")[2])
        state[name.replace(f"layers.{layer}.", f"layers.{layer + 1}.")] = state[name].clone()
    return state


def test_a_file_with_pairs_is_taken_as_it_is_with_or_without_the_copies(tmp_path: Path) -> None:
    trained = AlternatingPairs(CONFIG)
    spread(trained)
    for name, state in (("ours", trained.state_dict()), ("official", with_copies(trained))):
        save_file(state, tmp_path / f"{name}.safetensors")
        model = AlternatingPairs(CONFIG)
        assert load_checkpoint(model, tmp_path / f"{name}.safetensors").new == ()
        for key, value in trained.state_dict().items():
            assert torch.equal(model.state_dict()[key], value)
        with torch.device("meta"):
            shell = AlternatingPairs(CONFIG)
        assert check_checkpoint(shell, tmp_path / f"{name}.safetensors").new == ()


def test_layers_that_are_no_pairs_are_refused(tmp_path: Path) -> None:
    state = with_copies(AlternatingPairs(CONFIG))
    state["fusion.layers.1.cross_attention.key.weight"] += 1
    save_file(state, tmp_path / "deep.safetensors")
    with pytest.raises(UserError, match="fusion layers of the file do not come in pairs"):
        load_checkpoint(AlternatingPairs(CONFIG), tmp_path / "deep.safetensors")


@pytest.mark.parametrize("fusion", ["concatenated", "alternating"])
def test_fine_tuning_teaches_every_parameter(fusion: PairFusion) -> None:
    task = Nlvr(CONFIG, fusion, "exact")
    loss = task({"train": statements()})["train/cls"]
    loss.backward()
    assert [name for name, parameter in task.named_parameters() if parameter.grad is None] == []


def test_a_text_is_assigned_to_its_image_or_to_neither() -> None:
    rows = 300
    generator = torch.Generator().manual_seed(0)
    batch = {"sample_ids": torch.arange(rows) // 2, "group": torch.arange(rows) // 30, "negative_draws": torch.rand(rows, 2)}
    first, second, label = assign_images(torch.randn(rows, rows, generator=generator), batch)
    own, sample, group = torch.arange(rows), batch["sample_ids"], batch["group"]
    assert all(70 < count < 130 for count in Counter(label.tolist()).values())
    assert torch.equal(first[label == 0], own[label == 0]) and torch.equal(second[label == 1], own[label == 1])
    assert (sample[second] != sample)[label == 0].all() and (sample[first] != sample)[label == 1].all()
    neither = label == 2
    assert ((sample[first] != sample) & (sample[second] != sample) & (first != second))[neither].all()
    assert torch.equal(group[first], group) and torch.equal(group[second], group)


def test_wrong_images_are_the_more_similar_ones() -> None:
    rows = 400
    batch = {"sample_ids": torch.arange(rows), "group": torch.zeros(rows), "negative_draws": torch.rand(rows, 2)}
    similarity = torch.zeros(rows, rows)
    similarity[:, 7] = 9.0
    first, second, label = assign_images(similarity, batch)
    drawn = torch.where(label == 0, second, first)
    assert (drawn == 7).float().mean() > 0.9


def test_groups_without_enough_wrong_images_do_not_count() -> None:
    draws = torch.tensor([[0.1, 0.5], [0.5, 0.5], [0.9, 0.5], [0.9, 0.5]])
    alone = {"sample_ids": torch.arange(4), "group": torch.arange(4), "negative_draws": draws}
    assert assign_images(torch.zeros(4, 4), alone)[2].tolist() == [IGNORED] * 4
    two = {**alone, "group": torch.tensor([0, 0, 1, 1])}
    assert assign_images(torch.zeros(4, 4), two)[2].tolist() == [0, 1, IGNORED, IGNORED]
    task = TextAssignment(CONFIG, "exact")
    assert task.row_counts({"train": two})["train/assignment"].item() == 2
    assert task.row_counts({"train": alone})["train/assignment"].item() == 0


def test_text_assignment_teaches_everything_but_the_projection_that_it_compares_by() -> None:
    task = TextAssignment(CONFIG, "exact")
    task({"train": pair_batch(6) | {"group": torch.zeros(6, dtype=torch.int64)}})["train/assignment"].backward()
    assert [name for name, parameter in task.named_parameters() if parameter.requires_grad and parameter.grad is None] == []
    assert [name for name, parameter in task.named_parameters() if not parameter.requires_grad] == [
        "model.vision_proj.weight",
        "model.vision_proj.bias",
    ]
