"""Another text encoder in a trained model."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import RobertaForMaskedLM

from common.errors import UserError
from models.config import Beit2Config, FusionConfig, ModelConfig, TextConfig
from models.text.roberta import roberta_config
from models.text_swap import check_swap, swap_text_encoder
from models.vlm import HEADS, VisionLanguageModel

OLD = ModelConfig(
    vision=Beit2Config(image_size=16, patch_size=8, width=16, depth=1, heads=2),
    text=TextConfig(width=16, layers=2, heads=2, intermediate=32, vocab_size=30, max_positions=12),
    fusion=FusionConfig(layers=2),
    projection_dim=4,
)
XLMR = TextConfig(
    kind="roberta",
    width=16,
    layers=3,
    heads=4,
    intermediate=24,
    vocab_size=50,
    max_positions=20,
    type_vocab_size=1,
    pad_token_id=1,
    layer_norm_eps=1e-5,
)
OF_THE_TEXT = ("text.", "mlm_head.bias", "mlm_head.decoder")


def swapped(**text: object) -> ModelConfig:
    new = XLMR.model_copy(update=text)
    fusion = FusionConfig(layers=2, heads=2, intermediate=32, layer_norm_eps=1e-12)
    return OLD.model_copy(update={"text": new, "fusion": fusion, "tied_mlm": False})


def randomized(model: torch.nn.Module) -> dict[str, Tensor]:
    torch.manual_seed(3)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    tensors = randomized(VisionLanguageModel(OLD, HEADS))
    file = tmp_path_factory.mktemp("trained") / "model.safetensors"
    save_file(tensors, file)
    return file, tensors


def test_all_but_text_and_its_vocabulary_is_kept(trained: tuple[Path, dict[str, Tensor]]) -> None:
    file, tensors = trained
    model = VisionLanguageModel(swapped(), HEADS)
    new = swap_text_encoder(model, file)
    assert new == {name for name, _ in model.named_parameters() if name.startswith(OF_THE_TEXT)}
    kept = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(OF_THE_TEXT)}
    assert {"mlm_head.dense.weight", "text_proj.weight", "itm_head.0.weight", "box_head.0.weight", "temperature"} <= kept.keys()
    for name, tensor in kept.items():
        if name in tensors:  # derived buffers are not in every file
            torch.testing.assert_close(tensor, tensors[name], rtol=0, atol=0)


def test_the_new_encoder_starts_from_its_own_weights(trained: tuple[Path, dict[str, Tensor]], tmp_path: Path) -> None:
    source = RobertaForMaskedLM(roberta_config(XLMR)).eval()
    randomized(source)
    source.save_pretrained(tmp_path)
    model = VisionLanguageModel(swapped(weights=str(tmp_path)), HEADS)
    new = swap_text_encoder(model, trained[0])
    assert new == {"mlm_head.bias", "mlm_head.decoder"}
    ids = torch.tensor([[0, 7, 9, 2], [0, 8, 2, 1]])
    mask = ids != 1
    expected = source.roberta(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(model.eval().encode_text(ids, mask)[mask], expected[mask])
    torch.testing.assert_close(
        model.fusion.state_dict(),
        {name.removeprefix("fusion."): tensor for name, tensor in trained[1].items() if name.startswith("fusion.")},
    )


def test_the_report_tells_what_is_replaced_without_warning_of_it(trained: tuple[Path, dict[str, Tensor]]) -> None:
    with torch.device("meta"):
        model = VisionLanguageModel(swapped(), HEADS)
    lines = check_swap(model, trained[0]).lines()
    assert any(line.startswith("  text of the file: ") and line.endswith("ignored, the text encoder is replaced") for line in lines)
    assert any("text: " in line and "newly initialised" in line for line in lines)
    assert not [line for line in lines if "note" in line]


def test_an_encoder_of_another_width_is_refused(trained: tuple[Path, dict[str, Tensor]]) -> None:
    model = VisionLanguageModel(swapped(width=24), HEADS)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match="have another shape than the model's"):
        swap_text_encoder(model, trained[0])
    torch.testing.assert_close(dict(model.state_dict()), before)
