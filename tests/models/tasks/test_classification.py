"""One head over images, texts, and texts with images."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from common.errors import UserError
from common.labels import IGNORED
from models.checkpoints import load_checkpoint
from models.objectives.classification import classification_loss
from models.tasks.classification import Classification, Classifier, HeadConfig, MvpClassifier, predict_classes
from mvp_batches import SMALL, mvp_batch
from task_batches import pair_batch, small_config

ROWS, CLASSES = 4, 3
KINDS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "image": ({"inputs": "image"}, ("text.", "fusion.")),
    "image, deep": ({"inputs": "image", "image_feature": "global_and_mean", "depth": "deep"}, ("text.", "fusion.")),
    "text": ({"inputs": "text"}, ("vision.", "fusion.")),
    "text, all layers": ({"inputs": "text", "text_layers": "all"}, ("vision.", "fusion.layers.0.cross_attention")),
    "image and text": ({"inputs": "image_text"}, ()),
}


def rows(inputs: str) -> dict[str, Tensor]:
    batch = pair_batch(ROWS)
    keys = {"image": ("image",), "text": ("text_ids", "text_mask"), "image_text": ("image", "text_ids", "text_mask")}[inputs]
    return {"label": torch.tensor([0, 1, 2, IGNORED]), **{key: batch[key] for key in keys}}


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_input_leaves_idle_is_not_trained_and_all_else_is(kind: str) -> None:
    settings, idle = KINDS[kind]
    head = HeadConfig(classes=CLASSES, **settings)
    task = Classification(small_config(), head, "exact")
    task({"train": rows(head.inputs)})["train/cls"].backward()
    frozen = {name for name, parameter in task.model.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in task.model.named_parameters() if name.startswith(idle)}
    assert [name for name, parameter in task.model.named_parameters() if parameter.requires_grad and parameter.grad is None] == []
    chances = predict_classes(task.model, rows(head.inputs))
    torch.testing.assert_close(chances.sum(dim=1), torch.ones(ROWS))
    assert chances.shape == (ROWS, CLASSES)


def test_clips_are_classified_like_images() -> None:
    config = small_config()
    config = config.model_copy(update={"vision": config.vision.model_copy(update={"frames": 2})})
    model = Classifier(config, HeadConfig(classes=CLASSES)).eval()
    batch = rows("image_text")
    clip = batch["image"][:, None].expand(-1, 2, -1, -1, -1)
    assert model.logits({**batch, "image": clip}).shape == (ROWS, CLASSES)


def test_rows_without_a_label_do_not_count() -> None:
    logits = torch.randn(3, CLASSES)
    some = classification_loss(logits, torch.tensor([2, IGNORED, 0]), "exact")
    torch.testing.assert_close(some, torch.nn.functional.cross_entropy(logits[[0, 2]], torch.tensor([2, 0])))
    assert classification_loss(logits, torch.full((3,), IGNORED), "exact").item() == 0.0


def test_mvp_trains_its_pooler_and_head_and_nothing_is_idle() -> None:
    model = MvpClassifier(SMALL, CLASSES)
    logits = model.logits(mvp_batch(ROWS))
    classification_loss(logits, torch.arange(len(logits)) % CLASSES, "exact").backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_a_head_for_other_labels_is_left_aside_and_the_same_one_is_taken(tmp_path: Path) -> None:
    trained = Classifier(small_config(), HeadConfig(classes=CLASSES))
    save_file(trained.state_dict(), tmp_path / "trained.safetensors")
    same, other = (Classifier(small_config(), HeadConfig(classes=count)) for count in (CLASSES, 5))
    assert load_checkpoint(same, tmp_path / "trained.safetensors").new == ()
    with pytest.raises(UserError, match=r"cls_head"):
        load_checkpoint(other, tmp_path / "trained.safetensors")
    coverage = load_checkpoint(other, tmp_path / "trained.safetensors", ["cls_head*"])
    assert {name.split(".")[0] for name in coverage.new} == {"cls_head"}
    assert coverage.ignored["cls_head.3.bias"] == "this model starts without it"
    assert torch.equal(other.state_dict()["fusion.layers.0.mlp_in.weight"], trained.state_dict()["fusion.layers.0.mlp_in.weight"])
