"""Our X2-VLM computes what the official code computed, to the last digits of float32 and float64."""

import pytest
import torch
from torch import Tensor

from golden import Case, load_case
from models.tasks import losses, passes
from models.tasks.losses import stream_losses
from models.vlm import FusionPass, VisionLanguageModel

CASES = ["x2vlm_pretrain", "x2vlm_pretrain_sharp", "x2vlm_pretrain_video"]
RUNS = [(name, scenario) for name in CASES[:2] for scenario in ("image", "region", "region_all_boxes")]
RUNS += [("x2vlm_pretrain_video", "video")]
NAMES = {"loss_itc": "itc", "loss_itm": "itm", "loss_mlm": "mlm", "loss_bbox": "box_l1", "loss_giou": "box_giou"}
TOLERANCE = {"float32": (5e-6, 5e-6), "float64": (1e-9, 1e-9)}


def build(case: Case, dtype: torch.dtype) -> VisionLanguageModel:
    model = VisionLanguageModel(case.config, ("itc", "itm", "mlm", "box")).to(dtype).eval()
    missing, unexpected = model.load_state_dict(case.weights, strict=False)
    assert not unexpected
    assert all(key.endswith(("position_ids", "token_type_ids")) for key in missing)
    return model


def to_batch(inputs: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Official argument names to ours."""
    rows = len(inputs["text_ids"])
    batch = {
        "image": inputs["image"].to(dtype),
        "text_ids": inputs["text_ids"],
        "text_mask": inputs["text_atts"].bool(),
        "text_ids_masked": inputs["text_ids_masked"],
        "masked_positions": inputs["masked_pos"],
        "mlm_labels": inputs["masked_ids"],
        "sample_ids": torch.arange(rows),
        "group": torch.zeros(rows, dtype=torch.int64),
        "negative_draws": torch.zeros(rows, 2),
    }
    if "idx_to_group_img" in inputs:
        batch |= {
            "image_index": inputs["idx_to_group_img"],
            "patch_mask": inputs["image_atts"][:, 1:].bool(),
            "target_box": inputs["target_bbox"].to(dtype),
            "is_image": inputs["is_image"].bool() if "is_image" in inputs else torch.zeros(rows, dtype=torch.bool),
        }
    return batch


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "scenario"), RUNS)
def test_losses_and_gradients_equal_the_recorded_ones(name: str, scenario: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = load_case(name)
    torch_dtype = getattr(torch, dtype)
    model, batch = build(case, torch_dtype), to_batch(case.inputs[scenario], torch_dtype)
    recorded = case.outputs[dtype][scenario]
    # the record replaced the random draw by the likeliest negative and kept the indices
    every = torch.ones(len(batch["text_ids"]), dtype=torch.bool)
    drawn = (recorded["neg_image_idx"], every, recorded["neg_text_idx"], every)
    monkeypatch.setattr(passes, "draw_negatives", lambda *_: drawn)
    objectives = dict.fromkeys(["itc", "itm", "mlm", "box"] if "target_box" in batch else ["itc", "itm", "mlm"], 1.0)
    computed = stream_losses(model, batch, objectives, "exact")
    for official, ours in NAMES.items():
        if official in recorded:
            absolute, relative = TOLERANCE[dtype]
            torch.testing.assert_close(computed[ours], recorded[official].to(torch_dtype), atol=absolute, rtol=relative)
    sum(computed.values(), torch.zeros((), dtype=torch_dtype)).backward()
    norm = torch.stack([parameter.grad.norm() for parameter in model.parameters() if parameter.grad is not None]).norm()
    expected = case.gradients[scenario]["f64"]["module_norm"]["__all__"]
    assert norm.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tokens_features_and_boxes_of_regions_equal_the_recorded_ones(dtype: str) -> None:
    case = load_case("x2vlm_pretrain_sharp")
    torch_dtype = getattr(torch, dtype)
    model, recorded = build(case, torch_dtype), case.outputs[dtype]["region"]
    encoded = losses.Encoded(model, to_batch(case.inputs["region"], torch_dtype), ("itc", "box"))
    own, whole = (FusionPass(encoded.text, encoded.mask, view) for view in (encoded.own_view, encoded.image_view))
    fused, found = model.fuse(encoded.vision, [own, whole])
    tokens = encoded.mask[:, :, None]
    pairs = {
        "image_feat": model.image_features(encoded.global_tokens),
        "text_feat": model.text_features(encoded.text),
        "bbox_pred": model.boxes(found),
        "text_embeds": encoded.text * tokens,
        "cross_embeds": fused * tokens,
        "cross_embeds.2": found * tokens,
    }
    absolute, relative = (5e-5, 1e-5) if dtype == "float32" else (1e-9, 1e-9)
    for name, value in pairs.items():
        if name not in recorded:  # the float64 record keeps fewer tensors
            continue
        expected = recorded[name].to(torch_dtype)
        expected = expected * tokens if name.startswith(("text_embeds", "cross")) else expected
        torch.testing.assert_close(value, expected, atol=absolute, rtol=relative)
    if dtype == "float32":
        torch.testing.assert_close(encoded.global_tokens, recorded["vision_embeds"][:, 0], atol=absolute, rtol=relative)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_text_alone_passes_the_fusion_layers_without_vision(dtype: str) -> None:
    case = load_case("x2vlm_pretrain_sharp")
    torch_dtype = getattr(torch, dtype)
    model, inputs = build(case, torch_dtype), case.inputs["text"]
    mask = inputs["text_atts"].bool()
    _, fused = model.fusion(model.encode_text(inputs["text_ids_masked"], mask), mask, None)
    logits = model.masked_lm_logits(fused, inputs["masked_pos"])
    keep = (inputs["masked_ids"] != -100)[:, :, None]
    absolute, relative = (5e-5, 1e-5) if dtype == "float32" else (1e-9, 1e-9)
    torch.testing.assert_close(
        logits * keep, case.outputs[dtype]["text"]["mlm_logits"].to(torch_dtype) * keep, atol=absolute, rtol=relative
    )
