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
from models.objectives.classification import classification_loss, regression_loss
from models.objectives.mixing import mix_images
from models.tasks.classification import Classification, Classifier, ClassLoss, HeadConfig, MvpClassifier, predict_classes
from models.vision.normalize import STATISTICS, normalize_images
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


def classifier(task: Classification) -> Classifier:
    assert isinstance(task.model, Classifier)
    return task.model


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_input_leaves_idle_is_not_trained_and_all_else_is(kind: str) -> None:
    settings, idle = KINDS[kind]
    head = HeadConfig(classes=CLASSES, **settings)
    task = Classification(small_config(), head, "exact")
    task({"train": rows(head.inputs)})["train/cls"].backward()
    model = classifier(task)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith(idle)}
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None] == []
    chances = predict_classes(model, rows(head.inputs))
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


def test_a_linear_probe_trains_its_head_alone_on_features_that_do_not_change() -> None:
    head = HeadConfig(classes=CLASSES, inputs="image", depth="linear", frozen=True)
    task = Classification(small_config(dropout=0.2), head, "exact").train()
    task({"train": rows("image")})["train/cls"].backward()
    model = classifier(task)
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == {"cls_head.weight", "cls_head.bias"}
    assert model.training and model.cls_head.training and not any(part.training for part in model.vision.modules())
    first, again = (model.logits(rows("image")) for _ in range(2))
    assert torch.equal(first, again)  # stochastic depth, which would change them, is off
    moving = Classification(small_config(0.2), HeadConfig(classes=2, inputs="image"), "exact")
    assert any(part.training for part in classifier(moving).vision.modules())


@pytest.mark.parametrize("statistics", ["imagenet", "half"])
def test_pixels_are_normalised_as_the_head_says(statistics: Any) -> None:
    config = small_config()
    torch.manual_seed(0)
    other = Classifier(config, HeadConfig(classes=CLASSES, inputs="image", pixels=statistics)).eval()
    mean, std = STATISTICS[statistics]
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    by_hand = (images / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(other.logits({"image": images}), other.logits({"image": by_hand}))


def test_numbers_are_learned_by_the_squared_error() -> None:
    task = Classification(small_config(), HeadConfig(classes=1, inputs="text", target="number"), "exact").eval()
    batch = {**rows("text"), "label": torch.tensor([0.0, 1.5, 2.0, 5.0])}
    values = predict_classes(task.model, batch)
    expected = (values[:, 0] - batch["label"]).square().mean()
    torch.testing.assert_close(task({"train": batch})["train/cls"].detach(), expected)
    torch.testing.assert_close(regression_loss(values, batch["label"], "paper"), expected)


def test_smoothing_spreads_a_share_of_the_target_over_all_classes() -> None:
    logits, labels = torch.randn(4, CLASSES), torch.tensor([0, 1, 2, 0])
    target = 0.7 * torch.nn.functional.one_hot(labels, CLASSES) + 0.3 / CLASSES
    expected = -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(classification_loss(logits, labels, "exact", 0.3), expected)


@pytest.mark.parametrize("way", [{"mixup": 1.0, "cutmix": 0.0}, {"mixup": 0.0, "cutmix": 1.0}])
def test_mixed_images_are_their_own_and_their_partners_in_the_stated_shares(way: dict[str, float]) -> None:
    images = torch.stack([torch.zeros(3, 16, 16), torch.ones(3, 16, 16)])
    torch.manual_seed(4)
    mixed, kept = mix_images(images, **way)
    torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), torch.tensor([1 - kept, kept]))
    assert 0 < kept < 1 and mix_images(images, 0.0, 0.0) == (images, 1.0)
    assert len(mixed.unique()) == (2 if way["cutmix"] else len({kept, 1 - kept}))


def test_the_loss_of_mixed_images_is_that_of_both_labels() -> None:
    task = Classification(small_config(), HeadConfig(classes=CLASSES, inputs="image"), "exact", ClassLoss(mixup=1.0)).eval()
    batch = {**rows("image"), "label": torch.tensor([0, 1, 2, 0])}
    torch.manual_seed(5)
    found = task({"train": batch})["train/cls"]
    torch.manual_seed(5)
    mixed, kept = mix_images(normalize_images(batch["image"], torch.float32), 1.0, 0.0)
    logits = task.model.logits({"image": mixed})
    target = kept * torch.nn.functional.one_hot(batch["label"], CLASSES) + (1 - kept) * torch.nn.functional.one_hot(
        batch["label"].flip(0), CLASSES
    )
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(logits, target))
