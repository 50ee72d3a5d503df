"""MVP's checkpoints: names, sizes, transposed projections."""

import pytest
import torch
from torch import Tensor

from models.checkpoints.adapter import HeadCounts
from models.checkpoints.keys import convert, convert_back
from models.checkpoints.mvp import MvpAdapter
from models.mvp.config import MvpConfig
from models.mvp.model import MVP_HEADS, Mvp
from mvp_batches import SMALL

UNTIED = SMALL.model_copy(update={"tied_mlm": False, "dropout": 0.1})
ADAPTER = MvpAdapter()


def official_state(config: MvpConfig = UNTIED) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return convert_back(Mvp(config, MVP_HEADS).state_dict(), ADAPTER.table(config))


def shapes_of(state: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


@pytest.mark.parametrize("changes", [{}, {"region_norm": False}, {"text_layers": 2, "vision_layers": 3}, {"words": 55, "region_width": 12}])
def test_the_model_is_read_off_names_and_shapes(changes: dict[str, int]) -> None:
    config = UNTIED.model_copy(update=changes)
    state = official_state(config)
    assert ADAPTER.recognises(shapes_of(state))
    assert ADAPTER.config(shapes_of(state), HeadCounts(text=2)) == config


def test_a_file_goes_through_both_names_unchanged() -> None:
    state = official_state()
    table = ADAPTER.table(UNTIED)
    conversion = convert(state, table)
    assert not conversion.ignored
    Mvp(UNTIED, MVP_HEADS).load_state_dict(conversion.tensors)
    back = convert_back(conversion.tensors, table)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


def test_projections_multiply_from_the_right_in_official_files() -> None:
    state = official_state()
    states = torch.randn(3, UNTIED.width)
    model = Mvp(UNTIED, MVP_HEADS)
    model.load_state_dict(convert(state, ADAPTER.table(UNTIED)).tensors)
    torch.testing.assert_close(model.text_proj(states), states @ state["bert.txt_proj"])
    torch.testing.assert_close(model.vision_proj(states), states @ state["bert.vis_proj"])


def test_norms_may_have_their_tensorflow_names() -> None:
    state = official_state()
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {next((name.replace(*pair) for pair in old.items() if pair[0] in name), name): tensor for name, tensor in state.items()}
    assert ADAPTER.config(shapes_of(renamed), HeadCounts(text=2)) == UNTIED
    table = ADAPTER.table(UNTIED)
    assert convert(renamed, table).tensors.keys() == convert(state, table).tensors.keys()
    assert convert(renamed, table).sources["regions.norm.weight"] == "bert.LayerNorm.gamma"


def test_a_tied_model_takes_no_output_matrices_from_a_file() -> None:
    tied = UNTIED.model_copy(update={"tied_mlm": True})
    conversion = convert(official_state(), ADAPTER.table(tied))
    assert conversion.ignored == {"cls.predictions.decoder.weight": "derived", "half_mlm.decoder.weight": "derived"}
    Mvp(tied, MVP_HEADS).load_state_dict(conversion.tensors)


def test_a_fine_tuned_file_has_the_words_of_bert_and_a_head_of_its_own() -> None:
    state = {name: tensor for name, tensor in official_state().items() if not name.startswith(("half_mlm", "qa_head", "cls."))}
    state |= {"classifier.0.weight": torch.ones(4, 32), "cls.predictions.bias": torch.zeros(9)}
    config = ADAPTER.config(shapes_of(state), HeadCounts(text=2))
    assert (config.qa_answers, config.words) == (None, UNTIED.vocab_size)
    conversion = convert(state, ADAPTER.table(config))
    assert not conversion.ignored
    assert conversion.sources["cls_head.0.weight"] == "classifier.0.weight"


def test_files_of_other_models_are_not_taken_for_mvp() -> None:
    shapes = shapes_of(official_state())
    assert not ADAPTER.recognises({name: shape for name, shape in shapes.items() if ".mul_encoder." not in name})
    assert not ADAPTER.recognises({"text_encoder.bert.embeddings.word_embeddings.weight": torch.Size([60, 32])})
