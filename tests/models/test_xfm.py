"""X-FM: sizes, streams without images or texts, and where its gradients stop."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from common.errors import UserError
from engine.config.document import read_document
from models.config import Beit2Config, FusionConfig, ModelConfig, SwinConfig, TextConfig, VisualTokenizerConfig
from models.objectives.masked_image import token_loss
from models.tasks.losses import Variants, stream_losses
from models.tasks.pretrain import Pretraining, StreamObjectives
from models.vlm import ALL_HEADS, HEADS, VisionLanguageModel

BASE = Path(__file__).parents[2] / "configs" / "models" / "xfm_base.yaml"
SMALL = ModelConfig(
    vision=Beit2Config(image_size=16, patch_size=8, width=16, depth=1, heads=2, drop_path=0.0),
    text=TextConfig(
        kind="roberta", width=16, layers=1, heads=2, intermediate=32, vocab_size=40, max_positions=16, pad_token_id=1, dropout=0.0
    ),
    fusion=FusionConfig(layers=2),
    projection_dim=8,
    tied_mlm=False,
)
STOPPED = Variants(frozenset({"itm", "mlm", "box"}))


@pytest.fixture
def model() -> VisionLanguageModel:
    return build(SMALL)


def build(config: ModelConfig) -> VisionLanguageModel:
    torch.manual_seed(0)
    model = VisionLanguageModel(config, ALL_HEADS)
    for name, parameter in model.named_parameters():
        if name != "temperature":
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def text_side() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "text_ids": torch.randint(5, 40, (3, 6), generator=generator),
        "text_ids_masked": torch.randint(5, 40, (3, 6), generator=generator),
        "text_mask": torch.ones(3, 6, dtype=torch.bool),
        "masked_positions": torch.tensor([[1, 2], [3, 0], [4, 5]]),
        "mlm_labels": torch.tensor([[7, 8], [9, -100], [10, 11]]),
    }


def image_side() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        "image": torch.randint(0, 256, (3, 3, 16, 16), generator=generator, dtype=torch.uint8),
        "patch_hidden": torch.tensor([[True, False, False, True]] * 3),
    }


def pair_batch() -> dict[str, Tensor]:
    pairs = {"sample_ids": torch.arange(3), "group": torch.zeros(3, dtype=torch.int64), "negative_draws": torch.full((3, 2), 0.5)}
    boxes = {"target_box": torch.full((3, 4), 0.5), "is_image": torch.tensor([False, True, False])}
    return text_side() | image_side() | pairs | boxes


def trained_parts(model: VisionLanguageModel, loss: Tensor) -> set[str]:
    """Top-level modules that the loss gives a gradient that is not zero."""
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {
        name.split(".", 1)[0]
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().sum() > 0
    }


def test_base_has_the_published_number_of_parameters() -> None:
    """The paper's count leaves out the output matrix over the fusion encoder, which the official code calls an embedding."""
    config = ModelConfig.model_validate(read_document(BASE).values["model"])
    with torch.device("meta"):
        model = VisionLanguageModel(config, ALL_HEADS)
    counts = {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert counts["mlm_head.decoder"] == 50_265 * 768
    assert sum(counts.values()) - counts["mlm_head.decoder"] == 327_295_353


@pytest.mark.parametrize("objective", ["itm", "mlm", "box"])
def test_stopped_objectives_train_vision_and_fusion_but_not_the_text_encoder(model: VisionLanguageModel, objective: str) -> None:
    for variants, text_learns in ((STOPPED, False), (Variants(), True)):
        losses = stream_losses(model, pair_batch(), {objective}, "exact", variants)
        parts = trained_parts(model, torch.stack(list(losses.values())).sum())
        assert {"vision", "fusion"} <= parts
        assert ("text" in parts) == text_learns


def test_contrast_trains_the_text_encoder_also_where_others_stop(model: VisionLanguageModel) -> None:
    losses = stream_losses(model, pair_batch(), {"itc"}, "exact", STOPPED)
    assert trained_parts(model, losses["itc"]) == {"text", "vision", "text_proj", "vision_proj", "temperature"}


def test_texts_alone_train_the_text_encoder_and_its_own_head(model: VisionLanguageModel) -> None:
    losses = stream_losses(model, text_side(), {"text_mlm"}, "exact")
    assert set(losses) == {"text_mlm"}
    assert trained_parts(model, losses["text_mlm"]) == {"text", "text_mlm_head"}


def test_texts_alone_may_also_pass_the_fusion_layers_without_cross_attention(model: VisionLanguageModel) -> None:
    losses = stream_losses(model, text_side(), {"mlm"}, "exact")
    losses["mlm"].backward()
    gradients = {name: parameter.grad for name, parameter in model.fusion.named_parameters()}
    assert gradients["layers.0.self_attention.query.weight"] is not None
    assert gradients["layers.0.cross_attention.query.weight"] is None


def test_images_alone_train_the_vision_encoder(model: VisionLanguageModel) -> None:
    losses = stream_losses(model, image_side(), {"mim"}, "exact")
    assert set(losses) == {"mim"}
    assert trained_parts(model, losses["mim"]) == {"vision"}


def test_no_gradient_flows_into_the_target_of_masked_images(model: VisionLanguageModel) -> None:
    """On pairs too, where the tokens of the whole image are trained by other objectives."""
    target = model.encode_images(image_side()["image"]).detach()
    tokens = model.encode_masked_images(image_side()["image"], image_side()["patch_hidden"])
    fixed = torch.autograd.grad(token_loss(tokens, target, image_side()["patch_hidden"], "exact"), list(model.vision.parameters()))
    for batch in (image_side(), pair_batch()):
        seen: list[Tensor] = []
        encode = model.encode_images
        model.encode_images = lambda images: seen.append(encode(images)) or seen[-1]  # noqa: B023
        loss = stream_losses(model, batch, {"mim"}, "exact")["mim"]
        model.encode_images = encode
        (whole,) = seen
        gradients = torch.autograd.grad(loss, [*model.vision.parameters(), whole], allow_unused=True)
        assert gradients[-1] is None
        for found, expected in zip(gradients, fixed, strict=False):
            torch.testing.assert_close(found, expected)


def test_pooled_term_can_be_left_out(model: VisionLanguageModel) -> None:
    with_pooled, without = (
        stream_losses(model, image_side(), {"mim"}, "exact", Variants(pooled_mim=pooled))["mim"] for pooled in (True, False)
    )
    assert with_pooled.item() > without.item() > 0


def test_codes_of_a_visual_tokenizer_are_predicted_where_the_model_has_one() -> None:
    tokenizer = VisualTokenizerConfig(width=16, depth=1, heads=2, codes=6, code_width=4)
    model = build(SMALL.model_copy(update={"visual_tokenizer": tokenizer}))
    losses = stream_losses(model, image_side(), {"mim"}, "exact")
    tokens = model.encode_masked_images(image_side()["image"], image_side()["patch_hidden"])
    hidden = image_side()["patch_hidden"]
    codes = model.codes(image_side()["image"])
    torch.testing.assert_close(losses["mim"], torch.nn.functional.cross_entropy(model.code_logits(tokens)[hidden], codes[hidden]))
    assert trained_parts(model, losses["mim"]) == {"vision", "code_head"}


def test_a_fixed_temperature_is_not_trained() -> None:
    model = build(SMALL.model_copy(update={"learn_temperature": False}))
    assert "temperature" not in trained_parts(model, stream_losses(model, pair_batch(), {"itc"}, "exact")["itc"])
    assert not model.temperature.requires_grad


def test_masked_images_need_an_encoder_with_a_mask_token() -> None:
    swin = SMALL.model_copy(update={"vision": SwinConfig(image_size=224)})
    with torch.device("meta"), pytest.raises(UserError, match="swin has no mask token"):
        VisionLanguageModel(swin, [*HEADS, "mim"])


def test_pre_training_holds_all_streams_of_the_paper() -> None:
    pairs = dict.fromkeys(("itc", "itm", "mlm"), 0.5)
    streams = {
        "images": StreamObjectives(1.0, {**pairs, "mim": 0.5}, STOPPED),
        "regions": StreamObjectives(2.0, {**pairs, "box": 1.0}, STOPPED),
        "imagenet": StreamObjectives(1.0, {"mim": 0.25}),
        "texts": StreamObjectives(1.0, {"text_mlm": 1.0}),
    }
    torch.manual_seed(0)
    task = Pretraining(SMALL, streams, "exact")
    regions = pair_batch() | {"image_index": torch.tensor([0, 0, 2]), "patch_mask": torch.tensor([[True, False, True, True]] * 3)}
    losses = task({"images": pair_batch(), "regions": regions, "imagenet": image_side(), "texts": text_side()})
    assert set(losses) == set(task.weights)
    assert task.weights["regions/box_giou"] == 2.0
    assert task.weights["regions/itm"] == 1.0
    torch.stack([task.weights[name] * loss for name, loss in losses.items()]).sum().backward()
    assert [name for name, parameter in task.named_parameters() if parameter.grad is None] == []
