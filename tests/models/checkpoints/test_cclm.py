"""Official files of CCLM, and CCLM's start from X2-VLM without its text encoder."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.config.document import read_document
from models.checkpoints.adapter import Adapter, HeadCounts
from models.checkpoints.cclm import CclmV1, SplitX2vlm, without_text_encoder
from models.checkpoints.joint import joint_config, joint_table
from models.checkpoints.keys import convert, convert_back
from models.checkpoints.xfm import Xfm
from models.config import Beit2Config, FusionConfig, ModelConfig, SwinConfig, TextConfig
from models.vlm import HEADS, Head, VisionLanguageModel
from recorded import recorded_case, recorded_folder

ROOT = Path(__file__).parents[3]
XLMR = TextConfig(
    width=16,
    layers=3,
    heads=2,
    intermediate=32,
    vocab_size=40,
    max_positions=16,
    type_vocab_size=1,
    pad_token_id=1,
    layer_norm_eps=1e-5,
)
JOINT = ModelConfig(
    vision=SwinConfig(image_size=64, width=16, patch_size=4, embed_dim=4, depths=(2, 2, 2), heads=(1, 2, 2), window=4),
    text=XLMR,
    fusion=FusionConfig(layers=2),
    projection_dim=8,
)
SPLIT = ModelConfig(
    vision=Beit2Config(image_size=32, patch_size=8, width=24, depth=2, heads=2),
    text=XLMR.model_copy(update={"kind": "roberta"}),
    fusion=FusionConfig(layers=2, heads=4, intermediate=48, layer_norm_eps=1e-12),
    projection_dim=8,
    tied_mlm=False,
)
MODELS: list[tuple[Adapter, ModelConfig]] = [(CclmV1(), JOINT), (SplitX2vlm(), SPLIT)]
PUBLISHED = {
    "cclm": (CclmV1(), 525_677_393),
    "cclm_x2vlm_base": (SplitX2vlm(), 615_540_825),
    "cclm_x2vlm_large": (SplitX2vlm(), 1_225_073_817),
}
STARTING = ("weights", "weight_layers", "copy_text_layers")
"""Settings of where weights start from, which no file tells."""


def head_counts(config: ModelConfig) -> HeadCounts:
    return HeadCounts(text=config.text.heads, fusion=config.fusion.heads or config.text.heads)


def parameters(config: ModelConfig, heads: tuple[Head, ...] = HEADS) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: parameter.detach() for name, parameter in VisionLanguageModel(config, heads).named_parameters()}


def official(adapter: Adapter, config: ModelConfig, heads: tuple[Head, ...] = HEADS) -> dict[str, Tensor]:
    return convert_back(parameters(config, heads), adapter.table(config)) | adapter.buffers(config)


def shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


@pytest.mark.parametrize(("adapter", "config"), MODELS)
def test_the_configuration_is_told_from_shapes(adapter: Adapter, config: ModelConfig) -> None:
    assert adapter.config(shapes(official(adapter, config)), head_counts(config)) == config


@pytest.mark.parametrize(("adapter", "config"), MODELS)
def test_every_tensor_makes_the_round_trip(adapter: Adapter, config: ModelConfig) -> None:
    state, ours = official(adapter, config), parameters(config)
    conversion = convert(state, adapter.table(config))
    assert conversion.tensors.keys() == ours.keys()
    assert all(torch.equal(conversion.tensors[name], ours[name]) for name in ours)
    assert not [name for name, why in conversion.ignored.items() if why == "unknown"]


@pytest.mark.parametrize("name", ["cclm_pretrain_sharp", "cclm_pretrain_tlm", "x2vlm_crossviewlm_xlmr_sharp"])
def test_every_official_tensor_is_read_and_written_again(name: str) -> None:
    case = recorded_case(name)
    adapter = next(adapter for adapter, _ in MODELS if adapter.recognises(shapes(case.weights)))
    text, fusion = case.dims["text"], case.dims.get("cross", case.dims["text"])
    config = adapter.config(shapes(case.weights), HeadCounts(text=text["num_attention_heads"], fusion=fusion["num_attention_heads"]))
    table = adapter.table(config)
    again = convert_back(convert(case.weights, table).tensors, table) | adapter.buffers(config)
    assert again.keys() == case.weights.keys()
    assert all(torch.equal(again[key], tensor) for key, tensor in case.weights.items())


def test_files_of_other_families_are_not_taken_for_cclm() -> None:
    bert = JOINT.model_copy(update={"text": JOINT.text.model_copy(update={"type_vocab_size": 2})})
    states = {
        "cclm": official(CclmV1(), JOINT),
        "cclm_x2vlm": official(SplitX2vlm(), SPLIT),
        "xfm": official(Xfm(), SPLIT),
        "xvlm": official(CclmV1(), bert),
    }
    recognised = {name: [adapter.name for adapter, _ in MODELS if adapter.recognises(shapes(state))] for name, state in states.items()}
    assert recognised == {"cclm": ["cclm"], "cclm_x2vlm": ["cclm_x2vlm"], "xfm": [], "xvlm": []}


def test_fine_tuned_files_spell_the_joint_stack_without_bert() -> None:
    heads: tuple[Head, ...] = ("itc", "itm")
    renamed = {name.replace("text_encoder.bert.", "text_encoder."): tensor for name, tensor in official(CclmV1(), JOINT, heads).items()}
    assert CclmV1().recognises(shapes(renamed))
    config = CclmV1().config(shapes(renamed), head_counts(JOINT))
    assert config == JOINT
    assert convert(renamed, CclmV1().table(config)).tensors.keys() == parameters(JOINT, heads).keys()


@pytest.mark.parametrize("spelling", ["text_encoder.roberta.", "text_encoder.bert."])
def test_split_files_may_spell_the_stacks_within_a_masked_lm_model(spelling: str) -> None:
    renamed = {
        name.replace("text_encoder.", spelling).replace("cross_encoder.", "cross_encoder.bert."): tensor
        for name, tensor in official(SplitX2vlm(), SPLIT).items()
    }
    assert SplitX2vlm().recognises(shapes(renamed))
    config = SplitX2vlm().config(shapes(renamed), head_counts(SPLIT))
    assert config == SPLIT
    assert convert(renamed, SplitX2vlm().table(config)).tensors.keys() == parameters(SPLIT).keys()


def test_a_split_model_may_have_berts_text_encoder() -> None:
    text = SPLIT.text.model_copy(update={"kind": "bert", "type_vocab_size": 2, "pad_token_id": 0, "layer_norm_eps": 1e-12})
    config = SPLIT.model_copy(update={"text": text, "fusion": SPLIT.fusion.model_copy(update={"layer_norm_eps": None})})
    state = official(SplitX2vlm(), config)
    assert SplitX2vlm().config(shapes(state), head_counts(config)) == config


def test_tied_and_untied_output_matrices() -> None:
    joint, split = official(CclmV1(), JOINT), official(SplitX2vlm(), SPLIT)
    embedding = "embeddings.word_embeddings.weight"
    assert torch.equal(joint["text_encoder.cls.predictions.decoder.weight"], joint[f"text_encoder.bert.{embedding}"])
    assert torch.equal(joint["text_encoder.cls.predictions.decoder.bias"], joint["text_encoder.cls.predictions.bias"])
    assert torch.equal(split["mlm_head.predictions.decoder.bias"], split["mlm_head.predictions.bias"])
    assert not torch.equal(split["mlm_head.predictions.decoder.weight"], split[f"text_encoder.{embedding}"])


def test_a_file_without_temperature_has_a_fixed_one() -> None:
    for adapter, config in MODELS:
        state = {name: tensor for name, tensor in official(adapter, config).items() if name != "temp"}
        assert not adapter.config(shapes(state), head_counts(config)).learn_temperature


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_models_have_the_published_size_and_are_told_from_their_shapes(name: str) -> None:
    adapter, expected = PUBLISHED[name]
    config = ModelConfig.model_validate(read_document(ROOT / "configs" / "models" / f"{name}.yaml").values["model"])
    with torch.device("meta"):
        ours = dict(VisionLanguageModel(config, HEADS).named_parameters())
    assert sum(parameter.numel() for parameter in ours.values()) == expected
    state = shapes(convert_back(ours, adapter.table(config)))
    assert adapter.recognises(state)
    found, wanted = (item.model_dump() for item in (adapter.config(state, HeadCounts()), config))
    for settings in (found, wanted):
        for part in ("vision", "text", "fusion"):
            settings[part] = {key: value for key, value in settings[part].items() if key not in STARTING}
    assert found == wanted


def test_published_names_and_shapes_of_cclm_on_x2vlm() -> None:
    config = ModelConfig.model_validate(read_document(ROOT / "configs" / "models" / "cclm_x2vlm_base.yaml").values["model"])
    with torch.device("meta"):
        state = shapes(convert_back(dict(VisionLanguageModel(config, HEADS).named_parameters()), SplitX2vlm().table(config)))
    assert state["text_encoder.embeddings.word_embeddings.weight"] == (250002, 768)
    assert state["text_encoder.embeddings.position_embeddings.weight"] == (514, 768)
    assert state["cross_encoder.encoder.layer.5.crossattention.self.key.weight"] == (768, 768)
    assert state["mlm_head.predictions.decoder.weight"] == (250002, 768)
    assert state["vision_encoder.blocks.11.attn.relative_position_bias_table"] == (732, 12)


def test_start_from_x2vlm_takes_what_the_official_loader_took() -> None:
    recorded = recorded_folder("functions_x2vlm") / "checkpoint_mapping.json"
    (mapping,) = [entry["map"] for name, entry in json.loads(recorded.read_text()).items() if name.startswith("XVLM->CrossViewLM")]
    bert = TextConfig(width=16, layers=4, heads=2, intermediate=32, vocab_size=30, max_positions=12)
    joint = ModelConfig(vision=SPLIT.vision.model_copy(update={"depth": 3}), text=bert, fusion=FusionConfig(layers=2), projection_dim=8)
    split = joint.model_copy(update={"text": SPLIT.text.model_copy(update={"layers": 4}), "tied_mlm": False})
    before = convert_back(parameters(joint), joint_table(joint))
    assert joint_config(shapes(before), HeadCounts(text=2)) == joint
    kept = without_text_encoder(convert(before, joint_table(joint)).tensors)
    after = convert_back(kept, SplitX2vlm().table(split))
    taken = {name: sources[0] for name, sources in mapping.items() if isinstance(sources, list) and not sources[0].startswith("TEXTFILE:")}
    assert len(taken) > 100
    assert after.keys() == taken.keys()
    assert all(torch.equal(after[name], before[source]) for name, source in taken.items())
