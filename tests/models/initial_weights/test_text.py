"""Text weights from models that transformers wrote, small and local."""

import json
from pathlib import Path

import pytest
import torch
from transformers import BertForMaskedLM, BertModel, RobertaForMaskedLM, XLMRobertaConfig, XLMRobertaForMaskedLM

from common.errors import UserError
from models.config import Beit2Config, FusionConfig, ModelConfig, TextConfig
from models.initial_weights import load_initial_weights
from models.text.bert import bert_config
from models.text.roberta import roberta_config
from models.vlm import Head, VisionLanguageModel
from recorded import recorded_folder

VISION = Beit2Config(image_size=16, patch_size=8, width=16, depth=1, heads=2)
BERT = TextConfig(width=16, layers=2, heads=2, intermediate=32, vocab_size=30, max_positions=12)
ROBERTA = BERT.model_copy(update={"kind": "roberta", "type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5})

BERT_HEAD = {
    "dense.weight": "cls.predictions.transform.dense.weight",
    "norm.bias": "cls.predictions.transform.LayerNorm.bias",
    "bias": "cls.predictions.bias",
}
ROBERTA_HEAD = {"dense.weight": "lm_head.dense.weight", "norm.bias": "lm_head.layer_norm.bias", "bias": "lm_head.bias"}


def model_from(
    text: TextConfig, source: Path, copies: list[int] | None = None, tied: bool = True, heads: tuple[Head, ...] = ("itc", "mlm")
) -> VisionLanguageModel:
    torch.manual_seed(1)
    return VisionLanguageModel(
        ModelConfig(
            vision=VISION,
            text=text.model_copy(update={"weights": str(source)}),
            fusion=FusionConfig(layers=2, copy_text_layers=copies),
            projection_dim=4,
            tied_mlm=tied,
        ),
        heads,
    )


def randomize(module: torch.nn.Module) -> None:
    """Numbers of its own for every parameter: fresh norms and biases would all look alike."""
    torch.manual_seed(3)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)


def saved_bert(folder: Path, layers: int) -> dict[str, torch.Tensor]:
    source = BertForMaskedLM(bert_config(BERT.model_copy(update={"layers": layers})))
    randomize(source)
    source.save_pretrained(folder)
    return dict(source.state_dict())


def saved_roberta(folder: Path, layers: int) -> dict[str, torch.Tensor]:
    source = RobertaForMaskedLM(roberta_config(ROBERTA.model_copy(update={"layers": layers})))
    randomize(source)
    source.save_pretrained(folder)
    return dict(source.state_dict())


def saved_xlmr(folder: Path, layers: int) -> dict[str, torch.Tensor]:
    settings = roberta_config(ROBERTA.model_copy(update={"layers": layers})).to_dict()
    source = XLMRobertaForMaskedLM(XLMRobertaConfig(**{key: value for key, value in settings.items() if key != "model_type"}))
    randomize(source)
    source.save_pretrained(folder)
    return dict(source.state_dict())


def unfilled(model: VisionLanguageModel, filled: frozenset[str]) -> list[str]:
    mine = ("text.", "fusion.", "mlm_head.", "text_mlm_head.")
    return [name for name, _ in model.named_parameters() if name.startswith(mine) and name not in filled]


def test_a_local_bert_fills_text_fusion_and_head(tmp_path: Path) -> None:
    state = saved_bert(tmp_path, layers=4)
    model = model_from(BERT, tmp_path, copies=[2, 3])
    rest = unfilled(model, load_initial_weights(model))
    pairs = {
        "text.backbone.embeddings.position_embeddings.weight": "bert.embeddings.position_embeddings.weight",
        "text.backbone.encoder.layer.1.intermediate.dense.weight": "bert.encoder.layer.1.intermediate.dense.weight",
        "fusion.layers.0.self_attention.query.weight": "bert.encoder.layer.2.attention.self.query.weight",
        "fusion.layers.0.self_attention.output.bias": "bert.encoder.layer.2.attention.output.dense.bias",
        "fusion.layers.1.self_attention_norm.weight": "bert.encoder.layer.3.attention.output.LayerNorm.weight",
        "fusion.layers.1.mlp_in.weight": "bert.encoder.layer.3.intermediate.dense.weight",
        "fusion.layers.1.mlp_norm.bias": "bert.encoder.layer.3.output.LayerNorm.bias",
        **{f"mlm_head.{ours}": theirs for ours, theirs in BERT_HEAD.items()},
    }
    for ours, theirs in pairs.items():
        assert torch.equal(model.get_parameter(ours), state[theirs]), ours
    assert rest
    assert all(".cross_attention" in name for name in rest)


def test_chosen_layers_of_a_large_model(tmp_path: Path) -> None:
    state = saved_bert(tmp_path, layers=8)
    model = model_from(BERT.model_copy(update={"weight_layers": [1, 3]}), tmp_path, copies=[5, 7])
    load_initial_weights(model)
    for module, layer in {"text.backbone.encoder.layer.0": 1, "text.backbone.encoder.layer.1": 3}.items():
        theirs = state[f"bert.encoder.layer.{layer}.output.dense.weight"]
        assert torch.equal(model.get_parameter(f"{module}.output.dense.weight"), theirs)
    for index, layer in enumerate((5, 7)):
        theirs = state[f"bert.encoder.layer.{layer}.output.dense.weight"]
        assert torch.equal(model.get_parameter(f"fusion.layers.{index}.mlp_out.weight"), theirs)


CHOICES = {"bert12_to_18": (12, None, range(6, 12)), "bert24_to_12": (6, [1, 3, 5, 7, 9, 11], range(13, 24, 2))}
"""Recorded mapping to the settings that give it: text layers, their sources, sources of the fusion layers."""


@pytest.mark.parametrize("name", CHOICES)
def test_layers_go_where_the_official_code_puts_them(tmp_path: Path, name: str) -> None:
    file = recorded_folder("functions_x2vlm") / "functions.json"
    mapping = {key: layer for key, layer in json.loads(file.read_text())[name].items() if ".layer." in key}
    text_layers, sources, copies = CHOICES[name]
    text = BERT.model_copy(update={"layers": text_layers, "weight_layers": sources})
    source = BertForMaskedLM(bert_config(BERT.model_copy(update={"layers": 1 + max(mapping.values())})))
    for layer in range(1 + max(mapping.values())):
        torch.nn.init.constant_(source.get_parameter(f"bert.encoder.layer.{layer}.output.dense.bias"), layer)
    source.save_pretrained(tmp_path)
    fusion = FusionConfig(layers=6, copy_text_layers=list(copies))
    config = ModelConfig(vision=VISION, text=text.model_copy(update={"weights": str(tmp_path)}), fusion=fusion, projection_dim=4)
    model = VisionLanguageModel(config, ("itc",))
    load_initial_weights(model)
    ours = [f"text.backbone.encoder.layer.{index}.output.dense.bias" for index in range(text_layers)]
    ours += [f"fusion.layers.{index}.mlp_out.bias" for index in range(6)]
    found = {f"bert.encoder.layer.{index}.x": int(model.get_parameter(bias)[0]) for index, bias in enumerate(ours)}
    assert found == mapping


@pytest.mark.parametrize("kind", ["roberta", "bert"])
def test_xlmr_fills_a_stack_of_its_own_kind_and_berts(tmp_path: Path, kind: str) -> None:
    state = saved_xlmr(tmp_path, layers=4)
    model = model_from(ROBERTA.model_copy(update={"kind": kind}), tmp_path, copies=[2, 3])
    rest = unfilled(model, load_initial_weights(model))
    positions = model.get_parameter("text.backbone.embeddings.position_embeddings.weight")
    assert torch.equal(positions, state["roberta.embeddings.position_embeddings.weight"])
    for ours, theirs in ROBERTA_HEAD.items():
        assert torch.equal(model.get_parameter(f"mlm_head.{ours}"), state[theirs]), ours
    assert all(".cross_attention" in name for name in rest)


def test_a_head_with_a_matrix_of_its_own_starts_from_the_tied_one(tmp_path: Path) -> None:
    state = saved_roberta(tmp_path, layers=2)
    model = model_from(ROBERTA, tmp_path, tied=False)
    load_initial_weights(model)
    assert torch.equal(model.get_parameter("mlm_head.decoder"), state["roberta.embeddings.word_embeddings.weight"])


def test_a_head_over_text_states_takes_the_pretrained_head_and_leaves_the_other_random(tmp_path: Path) -> None:
    state = saved_roberta(tmp_path, layers=2)
    model = model_from(ROBERTA, tmp_path, tied=False, heads=("itc", "mlm", "text_mlm"))
    rest = unfilled(model, load_initial_weights(model))
    for ours, theirs in ROBERTA_HEAD.items():
        assert torch.equal(model.get_parameter(f"text_mlm_head.{ours}"), state[theirs]), ours
    assert {name.split(".")[0] for name in rest} == {"fusion", "mlm_head"}


def test_what_transformers_would_make_up_is_not_taken(tmp_path: Path) -> None:
    """A folder without a masked-LM head: the library adds a fresh one, which must not count as pretrained."""
    BertModel(bert_config(BERT)).save_pretrained(tmp_path)
    model = model_from(BERT, tmp_path)
    filled = load_initial_weights(model)
    assert not [name for name in filled if name.startswith("mlm_head.")]
    assert not [name for name in unfilled(model, filled) if name.startswith("text.")]


def test_old_names_of_norms_are_read(tmp_path: Path) -> None:
    state = saved_bert(tmp_path, layers=2)
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v for name, v in state.items()}
    (tmp_path / "model.safetensors").unlink()
    torch.save(old, tmp_path / "pytorch_model.bin")
    model = model_from(BERT, tmp_path)
    load_initial_weights(model)
    assert torch.equal(model.get_parameter("text.backbone.embeddings.LayerNorm.bias"), state["bert.embeddings.LayerNorm.bias"])


def test_a_layer_that_the_source_does_not_have_is_named(tmp_path: Path) -> None:
    saved_bert(tmp_path, layers=2)
    with pytest.raises(UserError, match=r"has no layer 5; see text\.weight_layers and fusion\.copy_text_layers"):
        load_initial_weights(model_from(BERT, tmp_path, copies=[1, 5]))


def test_weights_of_another_size_are_refused_by_name(tmp_path: Path) -> None:
    BertForMaskedLM(bert_config(BERT.model_copy(update={"vocab_size": 31}))).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"word_embeddings\.weight has shape \[31, 16\], the model needs \[30, 16\]"):
        load_initial_weights(model_from(BERT, tmp_path))


def test_a_source_that_is_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is neither a local folder nor a model transformers can load"):
        load_initial_weights(model_from(BERT, tmp_path / "nothing"))


def test_as_many_sources_as_layers() -> None:
    with pytest.raises(ValueError, match="weight_layers names 1 layers for 2 text layers"):
        TextConfig(layers=2, weight_layers=[1])
