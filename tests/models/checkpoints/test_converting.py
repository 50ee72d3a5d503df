"""Official files become ours and come back to the bit; encoders become what transformers loads."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import BertModel, CLIPVisionModel, RobertaModel

from common.errors import UserError
from models.checkpoints import load_pretrained
from models.checkpoints.adapter import HeadCounts
from models.checkpoints.converting import Converted, encoders_to_transformers, official_to_ours, ours_to_official
from models.checkpoints.pretrained import own_config
from models.checkpoints.reading import Contents, read_checkpoint
from models.checkpoints.registry import OURS, UNPLACED, detect
from models.config import ClipVitConfig, FusionConfig, ModelConfig, TextConfig
from models.vlm import HEADS, VisionLanguageModel
from recorded import FIXTURES, GOLDEN

FOLDERS = {path.parent.name: path.parent for root in (GOLDEN, FIXTURES) for path in sorted(root.glob("*/weights.safetensors"))}
TEXT = TextConfig(width=16, layers=2, heads=2, intermediate=32, vocab_size=30, max_positions=12)
VISION = ClipVitConfig(image_size=32, patch_size=8, width=16, depth=2, heads=2, intermediate=32, local_depth=1)


def counts_of(case: str) -> HeadCounts:
    """Numbers of heads of a recorded model, where its config tells them."""
    dims = json.loads((FOLDERS[case] / "config.json").read_text())["config"].get("dims", {})
    text = dims.get("text", {}).get("num_attention_heads")
    return HeadCounts(dims.get("vision", {}).get("num_attention_heads"), text, text)


def through_a_file(converted: Converted, path: Path) -> Contents:
    save_file({name: tensor.contiguous() for name, tensor in converted.tensors.items()}, path, metadata=converted.header)
    return read_checkpoint(path)


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("case", FOLDERS)
def test_every_recorded_file_comes_back_to_the_bit(case: str, tmp_path: Path) -> None:
    contents = read_checkpoint(FOLDERS[case] / "weights.safetensors")
    contents = Contents(contents.tensors, {"image_res": 64, "nested": {"lr": 1e-4, "files": ["a"]}})
    ours = through_a_file(official_to_ours(contents, case, counts_of(case)), tmp_path / "ours.safetensors")
    assert detect({name: tensor.shape for name, tensor in ours.tensors.items()}) is OURS
    back = ours_to_official(ours, own_config(tmp_path / "ours.safetensors", ours.metadata), case)
    assert back.tensors.keys() == contents.tensors.keys()
    for name, tensor in contents.tensors.items():
        assert back.tensors[name].dtype == tensor.dtype, name
        assert back.tensors[name].shape == tensor.shape, name
        assert bits(back.tensors[name]) == bits(tensor), name
    assert back.config == contents.config


@pytest.mark.parametrize("case", [case for case in FOLDERS if "pretrain" in case and "captioning" not in case])
def test_buffers_and_second_copies_are_made_again_rather_than_kept(case: str) -> None:
    contents = read_checkpoint(FOLDERS[case] / "weights.safetensors")
    converted = official_to_ours(contents, case, counts_of(case))
    kept = [name.removeprefix(UNPLACED) for name in converted.tensors if name.startswith(UNPLACED)]
    assert all(name.startswith(("vqkd.", "fusion_encoder.roberta.embeddings.")) or "lm_cap_head" in name for name in kept), kept


def clip_model(kind: str = "bert", seed: int = 0) -> VisionLanguageModel:
    torch.manual_seed(seed)
    text = TEXT.model_copy(update={"kind": kind, "pad_token_id": 1 if kind == "roberta" else 0})
    return VisionLanguageModel(ModelConfig(vision=VISION, text=text, fusion=FusionConfig(layers=1), projection_dim=4), HEADS).eval()


def test_a_converted_file_loads_by_itself(tmp_path: Path) -> None:
    model = clip_model()
    official = ours_to_official(Contents(dict(model.state_dict())), model.config, "run")
    ours = official_to_ours(Contents(official.tensors), "file.th", HeadCounts(2, 2, 2))
    through_a_file(ours, tmp_path / "ours.safetensors")
    loaded = load_pretrained(tmp_path / "ours.safetensors")
    assert isinstance(loaded, VisionLanguageModel)
    assert all(torch.equal(value, loaded.get_parameter(name)) for name, value in model.named_parameters())


def test_a_file_of_a_run_is_written_with_all_copies_and_buffers() -> None:
    model = clip_model()
    written = ours_to_official(Contents(dict(model.state_dict())), model.config, "run").tensors
    words = "text_encoder.bert.embeddings.word_embeddings.weight"
    assert torch.equal(written["text_encoder.cls.predictions.decoder.weight"], written[words])
    assert torch.equal(written["vision_encoder.position_ids"], torch.arange(17)[None])
    assert torch.equal(written["text_encoder.bert.embeddings.position_ids"], torch.arange(12)[None])


def test_a_model_that_no_official_code_has_is_refused_with_the_reasons() -> None:
    tensors = dict(clip_model("roberta").state_dict()) | {"own_head.weight": torch.zeros(1)}
    with pytest.raises(UserError, match=r"run: no official format can hold this model\. xvlm: has no place for own_head\.weight;.*xfm: "):
        ours_to_official(Contents(tensors), clip_model("roberta").config, "run")
    model = clip_model()
    with pytest.raises(UserError, match="x2vlm: would read as xvlm"):
        ours_to_official(Contents(dict(model.state_dict())), model.config, "run", "x2vlm")


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_transformers_loads_the_written_encoders_and_computes_the_same(tmp_path: Path, kind: str) -> None:
    model = clip_model(kind)
    lines = encoders_to_transformers(dict(model.state_dict()), model.config, tmp_path)
    assert any("fusion encoder and heads: not written" in line for line in lines)
    ids, mask = torch.randint(5, 30, (2, 6)), torch.ones(2, 6, dtype=torch.bool)
    text = (BertModel if kind == "bert" else RobertaModel).from_pretrained(tmp_path / "text", add_pooling_layer=False).eval()
    images = torch.randn(2, 3, 32, 32)
    vision = CLIPVisionModel.from_pretrained(tmp_path / "vision").eval()
    with torch.no_grad():
        torch.testing.assert_close(text(input_ids=ids, attention_mask=mask.long()).last_hidden_state, model.encode_text(ids, mask))
        torch.testing.assert_close(vision(pixel_values=images).pooler_output, model.encode_images(images)[:, 0])
