"""The whole model: sizes and clips."""

import pytest
import torch

from models.config import Beit2Config, ModelConfig, TextConfig
from models.vlm import Head, VisionLanguageModel

HEADS: tuple[Head, ...] = ("itc", "itm", "mlm", "box")
SMALL = ModelConfig(
    vision=Beit2Config(image_size=32, patch_size=8, width=24, depth=2, heads=2, frames=3, drop_path=0.0),
    text=TextConfig(width=24, layers=1, heads=2, intermediate=48, vocab_size=40, max_positions=16, dropout=0.0),
)


def trainable(config: ModelConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in VisionLanguageModel(config, HEADS).parameters() if parameter.requires_grad)


@pytest.mark.parametrize(("frames", "expected"), [(None, 254_758_401), (3, 254_760_705)])
def test_base_has_the_published_number_of_parameters(frames: int | None, expected: int) -> None:
    assert trainable(ModelConfig(vision=Beit2Config(frames=frames))) == expected


def test_large_has_the_published_number_of_parameters() -> None:
    vision = Beit2Config(width=1024, depth=24, heads=16, frames=3)
    assert trainable(ModelConfig(vision=vision, text=TextConfig(width=1024, heads=16, intermediate=4096))) == 592_952_129


def test_a_still_clip_without_frame_embedding_equals_its_image() -> None:
    model = VisionLanguageModel(SMALL, HEADS).eval()
    assert model.frames is not None
    torch.nn.init.zeros_(model.frames.positions)
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    clip = image[:, None].expand(-1, 3, -1, -1, -1)
    torch.testing.assert_close(model.encode_images(clip), model.encode_images(image))


def test_bytes_are_normalised_with_clip_mean_and_deviation() -> None:
    model = VisionLanguageModel(SMALL, HEADS).eval()
    image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    mean, deviation = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    pixels = (image / 255 - mean[:, None, None]) / deviation[:, None, None]
    torch.testing.assert_close(model.encode_images(image), model.encode_images(pixels))


def test_absolute_positions_start_as_clear_sines() -> None:
    vision = SMALL.vision.model_copy(update={"positions": "absolute", "frames": None})
    positions = VisionLanguageModel(SMALL.model_copy(update={"vision": vision}), HEADS).vision.get_parameter("backbone.pos_embed")
    assert positions[0, 1:].abs().max().item() == pytest.approx(2.0, abs=1e-3)
    assert torch.unique(positions[0, 1:].detach(), dim=0).shape[0] == 16
