"""Official X-FM files."""

from collections.abc import Mapping

import torch
from torch import Tensor

from models.checkpoints.adapter import HeadCounts
from models.checkpoints.keys import convert, convert_back
from models.checkpoints.xfm import Xfm
from models.config import Beit2Config, FusionConfig, ModelConfig, TextConfig, VisualTokenizerConfig
from models.vlm import ALL_HEADS, Head, VisionLanguageModel

CONFIG = ModelConfig(
    vision=Beit2Config(image_size=32, patch_size=8, width=24, depth=2, heads=2),
    text=TextConfig(
        kind="roberta",
        width=16,
        layers=2,
        heads=2,
        intermediate=32,
        vocab_size=40,
        max_positions=16,
        type_vocab_size=1,
        pad_token_id=1,
        layer_norm_eps=1e-5,
    ),
    fusion=FusionConfig(layers=3),
    projection_dim=8,
    tied_mlm=False,
    visual_tokenizer=VisualTokenizerConfig(width=16, depth=1, heads=1, codes=6, code_width=4),
)
HEAD_COUNTS = HeadCounts(vision=2, text=2, fusion=2)


def parameters(config: ModelConfig, heads: tuple[Head, ...] = ALL_HEADS) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: parameter.detach() for name, parameter in VisionLanguageModel(config, heads).named_parameters()}


def official(config: ModelConfig = CONFIG) -> dict[str, Tensor]:
    adapter = Xfm()
    return convert_back(parameters(config), adapter.table(config)) | adapter.buffers(config)


def shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


def test_the_configuration_is_told_from_shapes() -> None:
    adapter = Xfm()
    assert adapter.recognises(shapes(official()))
    assert adapter.config(shapes(official()), HEAD_COUNTS) == CONFIG


def test_every_tensor_makes_the_round_trip() -> None:
    conversion = convert(official(), Xfm().table(CONFIG))
    ours = parameters(CONFIG)
    assert conversion.tensors.keys() == ours.keys()
    assert all(torch.equal(conversion.tensors[name], ours[name]) for name in ours)
    assert not [name for name, why in conversion.ignored.items() if why == "unknown"]


def test_tied_matrices_are_written_twice() -> None:
    state = official()
    for copy, source in (
        ("text_encoder.lm_head.decoder.weight", "text_encoder.roberta.embeddings.word_embeddings.weight"),
        ("fusion_encoder.lm_head.decoder.weight", "fusion_encoder.roberta.embeddings.word_embeddings.weight"),
        ("fusion_encoder.lm_head.decoder.bias", "fusion_encoder.lm_head.bias"),
    ):
        assert torch.equal(state[copy], state[source])
    assert not torch.equal(state["text_encoder.lm_head.decoder.weight"], state["fusion_encoder.lm_head.decoder.weight"])


def test_what_the_official_code_never_uses_is_left_out() -> None:
    dead = {
        "text_encoder.lm_cap_head.dense.weight": torch.zeros(16, 16),
        "fusion_encoder.lm_cap_head.decoder.weight": torch.zeros(40, 16),
        "vqkd.decoder.cls_token": torch.zeros(1, 1, 16),
        "vqkd.quantize.cluster_size": torch.zeros(6),
    }
    conversion = convert(official() | dead, Xfm().table(CONFIG))
    assert conversion.tensors.keys() == parameters(CONFIG).keys()
    assert dead.keys() <= conversion.ignored.keys()


def test_embeddings_of_the_fusion_encoder_are_kept_for_the_decoder_that_starts_from_them() -> None:
    extra = {"fusion_encoder.roberta.embeddings.position_embeddings.weight": torch.zeros(16, 16)}
    conversion = convert(official() | extra, Xfm().table(CONFIG))
    assert conversion.tensors.keys() - parameters(CONFIG).keys() == {"fusion_embeddings.positions.weight"}


def test_fine_tuned_files_spell_the_text_encoder_without_roberta() -> None:
    renamed = {
        name.replace("text_encoder.roberta.", "text_encoder."): tensor
        for name, tensor in official().items()
        if not name.startswith(("text_encoder.lm_head", "vqkd.", "lm_head."))
    }
    adapter = Xfm()
    assert adapter.recognises(shapes(renamed))
    config = adapter.config(shapes(renamed), HEAD_COUNTS)
    assert config == CONFIG.model_copy(update={"visual_tokenizer": None})
    found = convert(renamed, adapter.table(config)).tensors
    written, needed = parameters(CONFIG), parameters(config, ("itc", "itm", "mlm", "box"))
    assert needed.keys() <= found.keys()
    assert all(torch.equal(found[name], written[name]) for name in needed)


def test_a_file_without_temperature_has_a_fixed_one() -> None:
    state = {name: tensor for name, tensor in official().items() if name != "temp"}
    assert not Xfm().config(shapes(state), HEAD_COUNTS).learn_temperature
