"""Models are filled from files of any known format, with an account of it, or not touched at all."""

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from common.errors import UserError
from models.checkpoints import load_checkpoint, load_pretrained
from models.checkpoints.adapter import HeadCounts
from models.checkpoints.keys import convert_back
from models.checkpoints.load import check_checkpoint
from models.checkpoints.registry import ADAPTERS, OURS, adapter_named, detect
from models.config import Beit2Config, ClipVitConfig, FusionConfig, ModelConfig, SwinConfig, TextConfig
from models.mvp.config import MvpConfig
from models.mvp.model import MVP_HEADS, Mvp
from models.vlm import HEADS, Head, VisionLanguageModel

BEIT = Beit2Config(image_size=32, patch_size=8, width=16, depth=2, heads=2)
SWIN = SwinConfig(image_size=64, embed_dim=4, depths=(2, 2), heads=(1, 2), window=4, width=8)
CLIP = ClipVitConfig(image_size=32, patch_size=8, width=16, depth=2, heads=2, intermediate=32, local_depth=1)
TEXT = TextConfig(width=16, layers=2, heads=2, intermediate=32, vocab_size=30, max_positions=12)
COUNTS = HeadCounts(2, 2, 2)


def config_of(vision: Beit2Config | SwinConfig | ClipVitConfig = BEIT, **changes: object) -> ModelConfig:
    return ModelConfig(vision=vision, text=TEXT, fusion=FusionConfig(layers=2), projection_dim=4).model_copy(update=changes)


def official(model: nn.Module, family: str = "x2vlm", bert: bool = True) -> dict[str, Tensor]:
    """The weights of a model of ours as the official code would save them, with its buffers; without `bert.` as fine-tuned ones."""
    adapter = adapter_named(family)
    state = {name: value for name, value in model.state_dict().items() if not name.endswith(("position_ids", "token_type_ids"))}
    tensors = convert_back(state, adapter.table(model.config)) | adapter.buffers(model.config)
    return tensors if bert else {name.replace("text_encoder.bert.", "text_encoder."): value for name, value in tensors.items()}


def model_of(config: ModelConfig, heads: tuple[Head, ...] = HEADS, seed: int = 0) -> VisionLanguageModel:
    torch.manual_seed(seed)
    return VisionLanguageModel(config, heads)


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = dict(one.named_parameters()), dict(other.named_parameters())
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(("family", "vision"), [("x2vlm", BEIT), ("xvlm", SWIN), ("xvlm", CLIP)])
@pytest.mark.parametrize("bert", [True, False])
def test_both_spellings_of_an_official_file_build_the_model_it_holds(tmp_path: Path, family: str, vision: Beit2Config, bert: bool) -> None:
    source = model_of(config_of(vision))
    torch.save({"model": official(source, family, bert), "config": {"image_res": 1}}, tmp_path / "any_name.th")
    loaded = load_pretrained(tmp_path / "any_name.th", counts=COUNTS)
    assert isinstance(loaded, VisionLanguageModel)
    assert same_weights(loaded, source)
    assert loaded.config.vision.image_size == vision.image_size
    assert not loaded.training


def test_only_the_heads_that_are_asked_for_are_built_and_the_report_names_the_rest(tmp_path: Path) -> None:
    source = model_of(config_of())
    torch.save(official(source), tmp_path / "file.th")
    loaded = load_pretrained(tmp_path / "file.th", heads=("itc", "itm"), counts=COUNTS)
    assert isinstance(loaded, VisionLanguageModel)
    assert not hasattr(loaded, "box_head")
    coverage = load_checkpoint(loaded, tmp_path / "file.th")
    assert coverage.ignored["bbox_head.0.weight"] == "this model has no such part"
    assert coverage.ignored["vision_encoder.blocks.0.attn.relative_position_index"] == "follows from the configuration"
    assert coverage.ignored["text_encoder.cls.predictions.decoder.weight"].startswith("a copy of ")
    lines = coverage.lines()
    assert lines[0].startswith(f"{tmp_path / 'file.th'} (x2vlm): {len(coverage.loaded)} tensors loaded, ")
    assert "  itm_head: 6 loaded (674)" in lines
    assert "  bbox_head of the file: 6 ignored, this model has no such part" in lines
    size = sum(parameter.numel() for parameter in loaded.fusion.parameters())
    assert f"  fusion: 52 loaded ({size:,}), 52 renamed" in lines


def test_position_tables_of_another_resolution_are_resized_and_reported(tmp_path: Path) -> None:
    source = model_of(config_of())
    torch.save(official(source), tmp_path / "file.th")
    larger = load_pretrained(tmp_path / "file.th", counts=COUNTS, image_size=48)
    name = "vision.backbone.blocks.1.attn.relative_position_bias_table"
    assert larger.get_parameter(name).shape == (11 * 11 + 3, 2)
    assert torch.equal(larger.get_parameter(name)[-3:], source.get_parameter(name)[-3:])
    coverage = load_checkpoint(larger, tmp_path / "file.th")
    assert coverage.converted[name] == "renamed and resized [52, 2] to [124, 2]"
    assert any("2 resized [52, 2] to [124, 2]" in line for line in coverage.lines())


@pytest.mark.parametrize("vision", [BEIT, SWIN, CLIP])
def test_our_own_files_are_known_and_resized_too(tmp_path: Path, vision: Beit2Config) -> None:
    source, larger = model_of(config_of(vision)), model_of(config_of(vision.model_copy(update={"image_size": 128, "window": 8})), seed=1)
    assert detect({name: value.shape for name, value in source.state_dict().items()}) is OURS
    save_file(dict(source.state_dict()), tmp_path / "model.safetensors")
    load_checkpoint(larger, tmp_path / "model.safetensors")
    assert torch.equal(larger.get_parameter("fusion.layers.1.mlp_in.weight"), source.get_parameter("fusion.layers.1.mlp_in.weight"))


def test_our_own_files_are_built_from_the_config_of_their_run(tmp_path: Path) -> None:
    source, file = model_of(config_of()), tmp_path / "checkpoints" / "best" / "model.safetensors"
    file.parent.mkdir(parents=True)
    save_file(dict(source.state_dict()), file)
    with pytest.raises(UserError, match="without the config of its run"):
        load_pretrained(file)
    (tmp_path / "config.yaml").write_text(json.dumps({"task": "pretrain", "model": source.config.model_dump(mode="json")}))
    loaded = load_pretrained(file)
    assert same_weights(loaded, source)
    assert loaded.config == source.config


def test_frames_are_taken_as_far_as_they_go_and_ignored_by_a_model_for_images(tmp_path: Path) -> None:
    clips = config_of(BEIT.model_copy(update={"frames": 3}))
    source = model_of(clips)
    torch.save(official(source), tmp_path / "file.th")
    more = model_of(config_of(BEIT.model_copy(update={"frames": 5})), seed=1)
    before = more.get_parameter("frames.positions").clone()
    load_checkpoint(more, tmp_path / "file.th")
    assert torch.equal(more.get_parameter("frames.positions")[:, :3], source.get_parameter("frames.positions"))
    assert torch.equal(more.get_parameter("frames.positions")[:, 3:], before[:, 3:])
    coverage = load_checkpoint(model_of(config_of()), tmp_path / "file.th")
    assert coverage.ignored["absolute_frame_pos_embed"] == "this model has no such part"
    torch.save(official(model_of(config_of())), tmp_path / "images.th")
    with pytest.raises(UserError, match=r"first frames.positions.*allow_missing: \[frames\*\]"):
        load_checkpoint(more, tmp_path / "images.th")
    assert load_checkpoint(more, tmp_path / "images.th", ["frames*"]).new == ("frames.positions",)


def refused(model: nn.Module, file: Path, allow: tuple[str, ...] = ()) -> str:
    """The error, after making sure that checking without values says the same and that nothing was changed."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError) as loading:
        load_checkpoint(model, file, allow)
    with pytest.raises(UserError) as checking:
        check_checkpoint(model, file, allow)
    assert str(checking.value) == str(loading.value)
    assert "\n" not in str(loading.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return str(loading.value)


def test_what_the_model_needs_and_the_file_lacks_is_an_error_unless_allowed_by_pattern(tmp_path: Path) -> None:
    tensors = official(model_of(config_of()))
    lacking = {name: value for name, value in tensors.items() if not name.startswith(("bbox_head.", "text_encoder.bert.embeddings.Layer"))}
    torch.save({"model": lacking}, tmp_path / "file.th")
    model = model_of(config_of(), seed=1)
    said = refused(model, tmp_path / "file.th", ("text.*",))
    assert "(x2vlm) lacks 6 tensors that the model needs, first box_head.0.bias: box_head (6)" in said
    assert "initialize.allow_missing: [box_head*]" in said
    coverage = load_checkpoint(model, tmp_path / "file.th", ["box_head*", "text.backbone.embeddings.LayerNorm.*"])
    assert len(coverage.new) == 8
    assert "  box_head: 6 newly initialised (740), not in the file" in coverage.lines()


def test_another_shape_names_both_names_both_shapes_and_the_setting(tmp_path: Path) -> None:
    torch.save(official(model_of(config_of())), tmp_path / "file.th")
    other = model_of(config_of(text=TEXT.model_copy(update={"vocab_size": 40})))
    said = refused(other, tmp_path / "file.th", ("*",))
    assert "mlm_head.bias (text_encoder.cls.predictions.bias): [30] in the file, [40] in the model" in said
    assert "model.text.vocab_size: 30 (config: 40)" in said


def test_a_deeper_file_is_not_cut_to_the_models_depth(tmp_path: Path) -> None:
    torch.save(official(model_of(config_of())), tmp_path / "file.th")
    said = refused(model_of(config_of(fusion=FusionConfig(layers=1))), tmp_path / "file.th", ("*",))
    assert "it has more layers than the model: fusion.layers.1." in said
    assert "model.fusion.layers: 2 (config: 1)" in said


def test_another_encoder_is_named(tmp_path: Path) -> None:
    torch.save(official(model_of(config_of())), tmp_path / "file.th")
    assert "model.vision.kind: beit2 (config: swin)" in refused(model_of(config_of(SWIN)), tmp_path / "file.th")


def test_layers_in_pairs_are_not_taken_for_one_stack(tmp_path: Path) -> None:
    source = model_of(config_of(SWIN))
    tensors = official(source, "xvlm")
    shared = "text_encoder.bert.encoder.layer.{}.crossattention.self.{}.weight"
    torch.save(tensors | {shared.format(3, part): tensors[shared.format(2, part)] for part in ("key", "value")}, tmp_path / "file.th")
    with pytest.raises(UserError, match=r"fusion layers come in pairs.*NLVR2"):
        load_checkpoint(source, tmp_path / "file.th")


def test_files_of_no_known_format_and_incomplete_ones_say_what_was_looked_for(tmp_path: Path) -> None:
    model = model_of(config_of())
    save_file({"encoder.weight": torch.zeros(1)}, tmp_path / "file.safetensors")
    said = refused(model, tmp_path / "file.safetensors")
    assert all(adapter.name in said for adapter in ADAPTERS)
    assert "begin with encoder.weight" in said
    tensors = official(model)
    del tensors["text_encoder.bert.embeddings.position_embeddings.weight"]
    torch.save(tensors, tmp_path / "part.th")
    assert "(x2vlm): not whole: it lacks text_encoder.bert.embeddings.position_embeddings.weight" in refused(model, tmp_path / "part.th")


def test_a_module_of_ones_own_takes_a_file_with_its_names(tmp_path: Path) -> None:
    model = nn.ModuleDict({"encoder": nn.Linear(3, 2), "head": nn.Linear(2, 1)})
    weights = {"encoder.weight": torch.ones(2, 3), "encoder.bias": torch.ones(2), "old_head.bias": torch.ones(5)}
    save_file(weights, tmp_path / "w.safetensors")
    coverage = load_checkpoint(model, tmp_path / "w.safetensors", ["head.*"])
    assert coverage.new == ("head.bias", "head.weight")
    assert dict(coverage.ignored) == {"old_head.bias": "this model has no such part"}
    assert coverage.converted == {}
    assert model.get_parameter("encoder.weight").sum() == 6


def test_settings_that_change_the_numbers_but_no_shape_are_noted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(official(model_of(config_of())), tmp_path / "file.th")
    model = model_of(config_of(text=TEXT.model_copy(update={"layer_norm_eps": 1e-6, "kind": "roberta"})))
    with caplog.at_level(logging.WARNING):
        coverage = load_checkpoint(model, tmp_path / "file.th")
    assert "model.text.kind is roberta here; models of this format were trained with bert" in coverage.notes
    assert any("text.layer_norm_eps is 1e-06 here" in note for note in coverage.notes)
    assert "model.text.kind is roberta here" in caplog.text
    assert load_checkpoint(model_of(config_of()), tmp_path / "file.th").notes == ()


def test_a_second_copy_with_other_values_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tensors = official(model_of(config_of()))
    tensors["text_encoder.cls.predictions.decoder.weight"] = torch.zeros(30, 16)
    torch.save(tensors, tmp_path / "file.th")
    with caplog.at_level(logging.WARNING):
        coverage = load_checkpoint(model_of(config_of()), tmp_path / "file.th")
    assert "with other values" in coverage.ignored["text_encoder.cls.predictions.decoder.weight"]
    assert "should be a copy" in caplog.text


def test_projections_that_are_stored_the_other_way_round_are_transposed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = MvpConfig(width=16, heads=2, intermediate=32, vocab_size=40, words=30, region_width=7, max_positions=20, tied_mlm=False)
    source = Mvp(
        config.model_copy(update={"text_layers": 1, "vision_layers": 1, "joint_layers": 1}), [head for head in MVP_HEADS if head != "qa"]
    )
    tensors = official(source, "mvp")
    assert torch.equal(tensors["bert.txt_proj"], source.text_proj.weight.T)
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    loaded = load_pretrained(tmp_path / "pytorch_model.bin", counts=HeadCounts(text=2))
    assert isinstance(loaded, Mvp)
    assert same_weights(loaded, source)
    assert load_checkpoint(loaded, tmp_path / "pytorch_model.bin").converted["text_proj.weight"] == "renamed and transposed"
