"""Parameter groups and optimizer state."""

import pytest
import torch
from torch import nn

from common.errors import UserError
from engine.config.schema import OptimizerSettings
from engine.optimizer import build_optimizer, load_optimizer_tensors, optimizer_tensors, parameter_groups, set_learning_rate
from models.config import Beit2Config, ModelConfig, TextConfig
from models.mvp.learning import ConceptEncoders
from models.mvp.pixels import PixelMvp
from models.vlm import VisionLanguageModel

CONFIG = ModelConfig(
    vision=Beit2Config(image_size=16, patch_size=8, width=16, depth=1, heads=2),
    text=TextConfig(width=16, layers=1, heads=2, intermediate=32, vocab_size=20, max_positions=8),
)


def rates_and_decay(settings: OptimizerSettings, new: frozenset[str] = frozenset()) -> dict[str, tuple[float, float]]:
    model = VisionLanguageModel(CONFIG, ("itc", "itm", "mlm", "box"))
    groups = parameter_groups(model.named_parameters(), settings, new)
    found = {name: (group["base_lr"], group["weight_decay"]) for group in groups for name in group["names"]}
    assert found.keys() == dict(model.named_parameters()).keys()
    return found


def test_decay_follows_the_documented_rule() -> None:
    found = rates_and_decay(OptimizerSettings(lr=1e-4, weight_decay=0.01))
    decayed = [
        "vision.backbone.blocks.0.gamma_1",
        "vision.backbone.cls_token",
        "temperature",
        "itm_head.1.weight",  # a norm inside a head
        "text.backbone.embeddings.word_embeddings.weight",
        "fusion.layers.0.cross_attention.key.weight",
    ]
    kept = [
        "vision.backbone.blocks.0.attn.relative_position_bias_table",
        "vision.backbone.blocks.0.attn.q_bias",
        "vision.backbone.blocks.0.norm1.weight",
        "vision.backbone.fc_norm.weight",
        "text.backbone.embeddings.LayerNorm.weight",
        "fusion.layers.0.cross_attention_norm.weight",
        "mlm_head.norm.weight",
        "mlm_head.bias",
    ]
    assert {name: found[name][1] for name in decayed} == dict.fromkeys(decayed, 0.01)
    assert {name: found[name][1] for name in kept} == dict.fromkeys(kept, 0.0)


def test_module_rates_go_before_the_multiplier_of_new_parameters() -> None:
    new = frozenset({"vision_proj.weight", "vision.backbone.cls_token", "fusion.layers.0.cross_attention.key.weight"})
    found = rates_and_decay(OptimizerSettings(lr=1.0, vision_lr=2.0, text_lr=3.0, lr_mult=10.0), new)
    assert found["vision.backbone.cls_token"][0] == 2.0
    assert found["fusion.layers.0.cross_attention.key.weight"][0] == 3.0  # cross_lr is text_lr by default
    assert found["vision_proj.weight"][0] == 10.0
    assert found["text_proj.weight"][0] == 1.0


def test_a_tied_language_head_learns_as_the_text_encoder_and_frames_as_what_is_new() -> None:
    settings = OptimizerSettings(lr=1.0, vision_lr=2.0, text_lr=3.0, lr_mult=10.0)
    names = ["frames.positions", "mlm_head.dense.weight", "text.x"]
    for decoder, rate in ([], 3.0), (["mlm_head.decoder"], 1.0):  # with an output matrix of its own it is a head like others
        named = [(name, nn.Parameter(torch.zeros(1))) for name in [*names, *decoder]]
        groups = parameter_groups(named, settings, frozenset({"frames.positions"}))
        found = {name: group["base_lr"] for group in groups for name in group["names"]}
        assert (found["frames.positions"], found["mlm_head.dense.weight"], found["text.x"]) == (10.0, rate, 3.0)


@pytest.mark.parametrize("implementation", ["fused", "foreach", "single", "official"])
def test_saved_state_continues_the_same_trajectory(implementation: str) -> None:
    settings = OptimizerSettings.model_validate({"lr": 0.1, "implementation": implementation})

    def build() -> tuple[nn.Linear, torch.optim.Optimizer]:
        torch.manual_seed(0)
        layer = nn.Linear(3, 2)
        return layer, build_optimizer(parameter_groups(layer.named_parameters(), settings, frozenset()), settings)

    def step(layer: nn.Linear, optimizer: torch.optim.Optimizer, number: int) -> None:
        set_learning_rate(optimizer, 1 / (number + 1))
        layer(torch.full((1, 3), float(number))).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    whole, optimizer = build()
    for number in (0, 1):
        step(whole, optimizer, number)
    weights, state = (
        {key: value.clone() for key, value in tensors.items()} for tensors in (whole.state_dict(), optimizer_tensors(optimizer))
    )
    for number in (2, 3):
        step(whole, optimizer, number)
    resumed, again = build()
    resumed.load_state_dict(weights)
    load_optimizer_tensors(again, state)
    for number in (2, 3):
        step(resumed, again, number)
    assert torch.equal(resumed.weight, whole.weight)


def test_the_state_of_another_model_is_refused() -> None:
    settings = OptimizerSettings(lr=0.1)
    layer = nn.Linear(3, 2)
    optimizer = build_optimizer(parameter_groups(layer.named_parameters(), settings, frozenset()), settings)
    with pytest.raises(UserError, match=r"other\.weight"):
        load_optimizer_tensors(optimizer, {f"{name}|step": torch.tensor(1.0) for name in ("other.weight", "weight", "bias")})


def test_encoders_of_one_side_and_the_joint_one_of_mvp_have_rates_of_their_own() -> None:
    config = CONFIG.model_copy(update={"mvp": ConceptEncoders(vision_layers=1, vocab_size=30)})
    model = PixelMvp(config, ["itc", "itm"])
    groups = parameter_groups(model.named_parameters(), OptimizerSettings(lr=1.0, vision_lr=0.1, text_lr=0.2, cross_lr=0.3), frozenset())
    rates = {name: (group["base_lr"], group["weight_decay"]) for group in groups for name in group["names"]}
    expected = {"vision.": 0.1, "mvp.embeddings.": 0.2, "mvp.text_encoder.": 0.2, "mvp.vision_encoder.": 0.2, "mvp.joint_encoder.": 0.3}
    for start, rate in expected.items():
        assert {found for name, (found, _) in rates.items() if name.startswith(start)} == {rate}, start
    assert rates["mvp.itm_head.weight"][0] == 1.0 and rates["mvp.logit_scale"] == (1.0, 0.0)
