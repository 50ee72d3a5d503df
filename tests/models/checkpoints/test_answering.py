"""Official files of question answering, under their own names."""

from pathlib import Path

import pytest
import torch

from common.settings import Settings
from models.answering import AnsweringModel
from models.checkpoints.adapter import HeadCounts
from models.checkpoints.cclm import SplitX2vlm
from models.checkpoints.keys import convert, convert_back
from models.checkpoints.mvp import MvpAdapter
from models.checkpoints.pretrained import load_pretrained
from models.checkpoints.x2vlm import X2vlm
from models.checkpoints.xfm import Xfm
from models.config import DecoderConfig, ModelConfig
from models.decoder import decoder_sources
from models.mvp.config import MvpConfig
from models.mvp.model import Mvp
from task_batches import small_config

COUNTS = HeadCounts(2, 2, 2)


def config_of(family: str) -> ModelConfig:
    config = small_config()
    if family == "x2vlm":
        return config.model_copy(update={"decoder": DecoderConfig(layers=1)})
    text = config.text.model_copy(update={"kind": "roberta", "pad_token_id": 1, "type_vocab_size": 1, "layer_norm_eps": 1e-5})
    positions, eps = ("roberta", None) if family == "xfm" else ("bert", 1e-12)
    decoder = DecoderConfig(layers=1, positions=positions, type_vocab_size=1 if family == "xfm" else 2)
    fusion = config.fusion.model_copy(update={"layer_norm_eps": eps})
    return config.model_copy(update={"text": text, "fusion": fusion, "decoder": decoder, "tied_mlm": False})


@pytest.mark.parametrize(("family", "adapter"), [("x2vlm", X2vlm()), ("xfm", Xfm()), ("cclm_x2vlm", SplitX2vlm())])
def test_a_fine_tuned_file_gives_the_model_that_wrote_it(family: str, adapter, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = config_of(family)
    model = AnsweringModel(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    official = convert_back(dict(model.named_parameters()), adapter.table(config))
    assert any(name.startswith("text_decoder.") for name in official)
    torch.save({"model": official}, tmp_path / "vqa.th")
    loaded = load_pretrained(tmp_path / "vqa.th", counts=COUNTS)
    assert isinstance(loaded, AnsweringModel)
    images, ids, mask = (
        torch.rand(2, 3, 16, 16),
        torch.tensor([[2, 7, 8, 3], [2, 9, 3, 1]]),
        torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]).bool(),
    )
    answers = torch.tensor([[2, 7, 3], [2, 8, 3]])
    results = []
    for item in (model, loaded):
        decoder = item.answer_decoder()
        states = item.read_questions(images, ids, mask)
        results.append(decoder.logits(decoder(answers, None, decoder.memory(states, mask))))
    torch.testing.assert_close(results[0], results[1])


def test_projections_of_images_are_no_start_for_those_of_texts_of_another_width() -> None:
    config = small_config()
    wide = config.model_copy(update={"vision": config.vision.model_copy(update={"width": 32})})
    missing = decoder_sources(config).keys() - decoder_sources(wide).keys()
    assert missing == {f"decoder.layers.0.cross_attention.{part}.{kind}" for part in ("key", "value") for kind in ("weight", "bias")}


def test_a_head_for_answers_is_not_taken_for_one_for_words() -> None:
    config = MvpConfig(
        width=16, heads=2, intermediate=32, text_layers=1, vision_layers=1, joint_layers=1, vocab_size=30, words=30, max_positions=12,
        region_width=6, vqa_answers=9, tied_mlm=False,
    )  # fmt: skip
    adapter = MvpAdapter()
    official = convert_back(Mvp(config, ("vqa",)).state_dict(), adapter.table(config))
    found = adapter.config({name: tensor.shape for name, tensor in official.items()}, HeadCounts(text=2))
    assert isinstance(found, Settings)
    assert found.vqa_answers == 9
    assert convert(official, adapter.table(found)).sources["vqa_head.bias"] == "cls.predictions.bias"
