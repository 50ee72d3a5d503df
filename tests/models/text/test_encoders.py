"""BERT's and RoBERTa's encoders behind the text contract."""

import pytest
import torch
from torch import Tensor

from models.checkpoints.adapter import HeadCounts
from models.checkpoints.cclm import CclmV1, SplitX2vlm
from models.checkpoints.keys import convert
from models.config import TextConfig
from models.text.encoder import TextEncoder
from models.vlm import build_text
from recorded import recorded_case

BERT = TextConfig(width=16, layers=2, heads=2, intermediate=32, vocab_size=30, max_positions=12, dropout=0.0)
ROBERTA = BERT.model_copy(update={"kind": "roberta", "pad_token_id": 1, "type_vocab_size": 1, "layer_norm_eps": 1e-5})
CASES = {"cclm_pretrain_sharp": CclmV1(), "x2vlm_crossviewlm_xlmr_sharp": SplitX2vlm()}
TOLERANCES = {"float32": (5e-5, 1e-5), "float64": (1e-9, 0.0)}


def encoder(config: TextConfig) -> TextEncoder:
    torch.manual_seed(0)
    built = build_text(config).eval()
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return built


def texts(pad: int, length: int = 7) -> tuple[Tensor, Tensor]:
    """Three texts of 7, 4 and 2 tokens, padded to `length`."""
    ids = torch.randint(5, 30, (3, 7), generator=torch.Generator().manual_seed(1))
    ids, mask = torch.nn.functional.pad(ids, (0, length - 7)), torch.arange(length) < torch.tensor([[7], [4], [2]])
    return ids.masked_fill(~mask, pad), mask


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", list(CASES))
def test_states_equal_the_recorded_ones(name: str, dtype: str) -> None:
    case, adapter = recorded_case(name), CASES[name]
    dims = case.dims["text"]
    config = adapter.config({key: tensor.shape for key, tensor in case.weights.items()}, HeadCounts(text=dims["num_attention_heads"]))
    assert (config.text.pad_token_id, config.text.layer_norm_eps) == (dims["pad_token_id"], dims["layer_norm_eps"])
    tensors = convert(case.weights, adapter.table(config)).tensors
    ours = build_text(config.text)
    ours.load_state_dict({key.removeprefix("text."): value for key, value in tensors.items() if key.startswith("text.")})
    ours = ours.to(getattr(torch, dtype)).eval()
    absolute, relative = TOLERANCES[dtype]
    for scenario, suffix, recorded in (
        ("image", "", "text_embeds"),
        ("para_text", "", "text_embeds"),
        ("para_text", "_2", "text_embeds.1"),
    ):
        inputs = case.inputs[scenario]
        states = ours(inputs[f"text_ids{suffix}"], inputs[f"text_atts{suffix}"])
        torch.testing.assert_close(states, case.outputs[dtype][scenario][recorded], atol=absolute, rtol=relative)


@pytest.mark.parametrize("config", [BERT, ROBERTA], ids=["bert", "roberta"])
def test_padding_leaves_the_tokens_states_alone(config: TextConfig) -> None:
    built = encoder(config)
    ids, mask = texts(config.pad_token_id)
    longer, longer_mask = texts(config.pad_token_id, 10)
    short, padded = built(ids, mask), built(longer, longer_mask)
    torch.testing.assert_close(padded[:, :7][mask], short[mask])
    for row, length in enumerate((7, 4, 2)):
        torch.testing.assert_close(built(ids[row : row + 1, :length], mask[row : row + 1, :length])[0], short[row, :length])


@pytest.mark.parametrize(("config", "used"), [(BERT, range(7)), (ROBERTA, range(2, 9))], ids=["bert", "roberta"])
def test_positions_start_where_the_published_weights_expect(config: TextConfig, used: range) -> None:
    built = encoder(config)
    ids, mask = texts(config.pad_token_id)
    built(ids, mask)[mask].square().sum().backward()
    gradient = built.backbone.embeddings.position_embeddings.weight.grad
    assert gradient is not None
    assert gradient.abs().sum(dim=1).nonzero().flatten().tolist() == list(used)


def test_the_longest_text_fills_the_position_table() -> None:
    for config in (BERT, ROBERTA):
        ids = torch.full((1, config.max_tokens), 7)
        assert encoder(config)(ids, torch.ones_like(ids)).shape == (1, config.max_tokens, 16)
    assert (BERT.max_tokens, ROBERTA.max_tokens) == (12, 10)


@pytest.mark.parametrize("config", [BERT, ROBERTA], ids=["bert", "roberta"])
def test_encoding_asks_the_device_nothing(config: TextConfig) -> None:
    with torch.device("meta"):  # tensors without values: whoever looks at one fails
        states = build_text(config)(torch.zeros(3, 7, dtype=torch.int64), torch.ones(3, 7, dtype=torch.bool))
    assert states.shape == (3, 7, 16)
