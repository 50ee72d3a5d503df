"""The visual tokenizer."""

import torch

from models.config import VisualTokenizerConfig
from models.vision.normalize import normalize_images
from models.vision.vqkd import VisualTokenizer

CONFIG = VisualTokenizerConfig(width=16, depth=1, heads=2, codes=6, code_width=4)


def build(normalised_input: bool = True) -> VisualTokenizer:
    torch.manual_seed(0)
    tokenizer = VisualTokenizer(CONFIG.model_copy(update={"normalised_input": normalised_input}), 16, 8)
    for parameter in tokenizer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return tokenizer.eval()


def test_every_patch_gets_the_nearest_code() -> None:
    tokenizer, images = build(), 127.5 * torch.randn(3, 3, 16, 16)  # as far apart as bytes are
    with torch.no_grad():
        pixels = images / 127.5 - 1
        patches = tokenizer.encoder.fc_norm(tokenizer.encoder.forward_features(pixels)[:, 1:])
        states = torch.nn.functional.normalize(tokenizer.projection(patches), dim=-1)
        distances = torch.cdist(states, tokenizer.codebook.expand(3, -1, -1))
    assert images.max() > 1
    codes = tokenizer(images)
    assert torch.equal(codes, distances.argmin(dim=-1))
    assert len(codes.unique()) > 1


def test_dim_normalised_images_are_taken_for_pixels_up_to_one() -> None:
    tokenizer = build()
    dim = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(tokenizer._pixels(dim), dim * 2 - 1)


def test_without_the_quirk_pixels_come_back() -> None:
    tokenizer = build(normalised_input=False)
    original = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    pixels = tokenizer._pixels(normalize_images(original, torch.float32))
    torch.testing.assert_close(pixels, original / 127.5 - 1)


def test_it_is_frozen() -> None:
    assert not any(parameter.requires_grad for parameter in build().parameters())
