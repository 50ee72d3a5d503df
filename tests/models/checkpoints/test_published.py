"""The layouts of the published files: recognised, described by their configs, and covered."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from safetensors import safe_open

import published
from common.errors import UserError
from models.checkpoints.coverage import Coverage
from models.checkpoints.differences import computing_differences, size_differences
from models.checkpoints.load import fit, name_tensors
from models.checkpoints.pretrained import build
from models.checkpoints.reading import Contents
from models.config import ModelConfig
from models.mvp.config import MvpConfig
from models.tasks.nlvr import AlternatingPairs
from published import LAYOUTS, Shapes, on_meta
from recorded import recorded_folder

ROOT = Path(__file__).parents[3]
SMALL = (200, 40, 2)

RECORDED: dict[str, Shapes] = {
    "xvlm_pretrain_swin": published.swin(8, (2, 2, 2, 2), (1, 2, 4, 8), 4, 128)
    | published.joint_stack(SMALL, 64, 128, 6, 4, 64)
    | published.heads_of(64, 64, 32),
    "xvlm_pretrain_clip_sharp": published.clip(64, 3, 128, 64)
    | published.joint_stack(SMALL, 64, 128, 6, 4, 64)
    | published.heads_of(64, 64, 32),
    "xvlm_retrieval_swin": published.swin(8, (2, 2, 2, 2), (1, 2, 4, 8), 4, 128)
    | published.joint_stack(SMALL, 64, 128, 6, 4, 64, head=False, bert=False)
    | published.heads_of(64, 64, 32, ("itc", "itm")),
    "x2vlm_pretrain_video": published.beit(64, 3, 4, 4)
    | published.joint_stack(SMALL, 64, 128, 6, 4, 64)
    | published.heads_of(64, 64, 32)
    | {"absolute_frame_pos_embed": (1, 3, 1, 64)},
    "x2vlm_crossviewlm_xlmr_sharp": published.beit(64, 3, 4, 4)
    | published.split_stack((182, 42, 1), 64, 128, 4, 2, 64)
    | published.heads_of(64, 64, 32),
    "cclm_pretrain_tlm": published.swin(4, (2, 2, 2, 2), (1, 2, 2, 4), 4, 128)
    | published.joint_stack((160, 34, 1), 32, 64, 12, 6, 32)
    | published.heads_of(32, 32, 32),
    "xfm_pretrain_sharp": published.beit(64, 2, 4, 4, mask_token=True)
    | published.xfm_stacks((291, 42, 1), 64, 128, 3, 2, 64)
    | published.heads_of(64, 64, 32),
    "mvp_pretrain": published.mvp(150, 120, 40, 64, 128, 2, 22, answers=7),
}


@pytest.mark.parametrize("case", RECORDED)
def test_the_written_down_layouts_are_the_recorded_ones(case: str) -> None:
    with safe_open(recorded_folder(case) / "weights.safetensors", framework="pt") as opened:
        recorded = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118 (not a dict)
    assert RECORDED[case] == recorded


@pytest.mark.parametrize(("layout", "entries"), [("xvlm pre-training", 644), ("xfm base", 771)])
def test_files_have_as_many_entries_as_the_official_classes(layout: str, entries: int) -> None:
    assert len(LAYOUTS[layout]) == entries


CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "xvlm pre-training": ("xvlm_base", {}),
    "xvlm retrieval 384": ("xvlm_base", {"image_size": 384, "window": 12}),
    "xvlm boxes 384": ("xvlm_base", {"image_size": 384, "window": 12}),
    "xvlm question answering 480": ("xvlm_base", {"image_size": 480, "window": 15}),
    "xvlm captioning 384": ("xvlm_base", {"image_size": 384, "window": 12}),
    "x2vlm base 4m": ("x2vlm_base", {}),
    "x2vlm base 1b": ("x2vlm_base", {"frames": 3}),
    "x2vlm large 4m": ("x2vlm_large", {}),
    "x2vlm large 1b": ("x2vlm_large", {"frames": 3}),
    "x2vlm base retrieval 384": ("x2vlm_base", {"image_size": 384}),
    "x2vlm large retrieval 384": ("x2vlm_large", {"image_size": 384}),
    "x2vlm large boxes 384": ("x2vlm_large", {"image_size": 384}),
    "x2vlm base question answering 768": ("x2vlm_base", {"image_size": 768}),
    "x2vlm large question answering 768": ("x2vlm_large", {"image_size": 768}),
    "x2vlm large captioning 384": ("x2vlm_large", {"image_size": 384}),
    "cclm": ("cclm", {}),
    "cclm_x2vlm base": ("cclm_x2vlm_base", {}),
    "cclm_x2vlm large": ("cclm_x2vlm_large", {}),
    "xfm base": ("xfm_base", {}),
    "xfm base without captioning heads": ("xfm_base", {}),
    "mvp base": ("mvp_base", {}),
}
"""The recipe of each layout's model, and what is set beside it."""


def config_of(layout: str) -> ModelConfig | MvpConfig:
    name, changes = CONFIGS[layout]
    if name == "mvp_base":
        return MvpConfig(tied_mlm=False)  # the published base model is its default
    file = ROOT / "configs" / "models" / f"{name}.yaml"
    settings = YAML(typ="safe").load(file.read_text(encoding="utf-8"))["model"]
    return ModelConfig.model_validate({**settings, "vision": {**settings["vision"], **changes}})


@cache
def coverage_of(layout: str) -> Coverage:
    """Of a model as its recipe describes it, with all heads that the file holds."""
    contents, config = Contents(on_meta(LAYOUTS[layout])), config_of(layout)
    named = name_tensors(contents, layout)
    with torch.device("meta"):
        model = build(config, None, named.conversion.tensors)
    return fit(contents, model, layout, []).coverage


@pytest.mark.parametrize("layout", CONFIGS)
def test_the_recipe_describes_the_model_in_the_file(layout: str) -> None:
    told, config = name_tensors(Contents(on_meta(LAYOUTS[layout])), layout).config, config_of(layout)
    assert told is not None
    assert not size_differences(told, config, LAYOUTS[layout] | {"text_proj.weight": ()})
    assert not computing_differences(told, config)
    if isinstance(told, ModelConfig) and isinstance(config, ModelConfig):
        ignored = {"drop_path", "mlp_ratio", "layer_scale"}
        assert told.vision.model_dump(exclude=ignored) == config.vision.model_dump(exclude=ignored)
        assert told.tied_mlm == config.tied_mlm


@pytest.mark.parametrize("layout", CONFIGS)
def test_the_file_fills_the_whole_model_and_what_is_left_is_named(layout: str) -> None:
    coverage = coverage_of(layout)
    assert coverage.new == ()
    assert len(coverage.loaded) + len(coverage.ignored) == len(LAYOUTS[layout])
    assert not any("resized" in change for change in coverage.converted.values())
    left = {name for name, why in coverage.ignored.items() if why == "no model here has such a part"}
    known = ("crit_mask_lm_smoothed.",)
    assert all(name.startswith(known) or ".lm_cap_head." in name for name in left), left


def test_a_file_of_pairs_of_images_fills_the_model_for_them() -> None:
    layout = published.swin(*published.SWIN_B, 12, 384) | published.mlp("cls_head", 768, 2)
    layout |= published.joint_stack(published.BERT, 768, 3072, 18, 6, 1024, head=False, bert=False)
    config = config_of("xvlm retrieval 384")
    assert isinstance(config, ModelConfig)
    with torch.device("meta"):
        model = AlternatingPairs(config)
    coverage = fit(Contents(on_meta(layout)), model, "checkpoint_best.pth", []).coverage
    assert coverage.new == ()
    page = (ROOT / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    assert f"| {len(layout)} = {len(coverage.loaded)} + {len(coverage.ignored)} + 0 |" in page
    shared = [name for name, why in coverage.ignored.items() if why == "this model starts without it"]
    assert len(shared) == 6 * 4  # weights and biases of keys and values


def test_layouts_without_a_model_here_are_refused_by_name() -> None:
    with pytest.raises(UserError, match="none of the known formats"):
        name_tensors(Contents(on_meta({"text_decoder.weight": (2, 2)})), "other.th")


def test_parameters_of_the_recipes_are_the_published_numbers() -> None:
    expected = {"xvlm_base": 215_637_241, "xvlm_clip_base": 212_268_609}
    for name, count in expected.items():
        text = (ROOT / "configs" / "models" / f"{name}.yaml").read_text(encoding="utf-8")
        config = ModelConfig.model_validate(YAML(typ="safe").load(text)["model"])
        with torch.device("meta"):
            model = build(config, ("itc", "itm", "mlm", "box"), {})
        assert sum(parameter.numel() for parameter in model.parameters()) == count
        assert f"{count:,}" in text


@pytest.mark.parametrize("layout", CONFIGS)
def test_the_page_tells_the_measured_coverage(layout: str) -> None:
    coverage = coverage_of(layout)
    unplaced = sum(why == "no model here has such a part" for why in coverage.ignored.values())
    derived = len(coverage.ignored) - unplaced
    row = f"| {len(LAYOUTS[layout])} = {len(coverage.loaded)} + {derived} + {unplaced}"
    name, changes = CONFIGS[layout]
    page = (ROOT / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if row in line]
    assert any((f"`{name}`" in line or name == "mvp_base") and all(str(value) in line for value in changes.values()) for line in rows)
