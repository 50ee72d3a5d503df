"""Settings of clips and of matching that do not fit are refused by name."""

from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from engine.config.loader import load_config

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.vision.frames=null", "streams.videos is of clips. Set model.vision.frames"),
        ("matching.clean_stream=images", "matching.clean_stream: images is no stream with a clean source"),
        ("matching.clean_stream=nothing", "matching.clean_stream: nothing is no stream"),
    ],
)
def test_settings_that_do_not_fit_are_refused(override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(ROOT / "configs/quickstart/pretrain_video.yaml", [override])
    assert message in str(caught.value)


def test_steps_without_matching_need_another_objective_of_the_fusion_encoder() -> None:
    overrides = ["matching.until_step=5", "streams.images.objectives.mlm=0"]
    with pytest.raises(UserError, match=r"streams\.images has itm without mlm"):
        load_config(ROOT / "configs/quickstart/pretrain_video.yaml", overrides)


def test_the_recipe_of_a_billion_pairs_learns_matching_from_clean_ones() -> None:
    config: Any = load_config(ROOT / "configs/pretrain/x2vlm_base_1b.yaml").config
    assert config.matching.clean_stream == "images"
    assert config.matching.until_step == 200_000
    assert config.streams["images"].clean.probability == 0.15
    second: Any = load_config(ROOT / "configs/pretrain/x2vlm_base_1b_stage2.yaml").config
    assert next(iter(second.streams)) == "videos"  # whose activations are gone before the others begin
    assert second.model.vision.frames == 3
