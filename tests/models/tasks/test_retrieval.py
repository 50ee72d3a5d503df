"""Two-stage ranking."""

import pytest
import torch

from models.config import Beit2Config, FusionConfig, ModelConfig, TextConfig
from models.tasks.retrieval import NOT_CANDIDATE, Gallery, encode_gallery, rerank_images, rerank_texts
from models.vlm import FusionPass, VisionLanguageModel

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> VisionLanguageModel:
    torch.manual_seed(0)
    config = ModelConfig(
        vision=Beit2Config(image_size=16, patch_size=8, width=16, depth=1, heads=2),
        text=TextConfig(width=16, layers=1, heads=2, intermediate=32, vocab_size=40, max_positions=16),
        fusion=FusionConfig(layers=1),
    )
    model = VisionLanguageModel(config, ("itc", "itm")).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture(scope="module")
def gallery(model: VisionLanguageModel) -> Gallery:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (5, 3, 16, 16), generator=generator, dtype=torch.uint8)
    texts = []
    for length in (3, 8, 5):  # batches padded differently
        ids = torch.randint(5, 40, (4, length), generator=generator)
        texts.append((ids, torch.arange(length) < torch.randint(2, length + 1, (4, 1), generator=generator)))
    return encode_gallery(model, images.split(2), texts, CPU)


def brute_force(model: VisionLanguageModel, gallery: Gallery) -> torch.Tensor:
    """Matching logit of every pair, one by one, [I, T]."""
    scores = torch.empty(len(gallery.tokens), len(gallery.states))
    with torch.no_grad():
        for image, tokens in enumerate(gallery.tokens):
            for text, mask in enumerate(gallery.mask):
                length = int(mask.sum())
                item = FusionPass(gallery.states[text : text + 1, :length], mask[None, :length], torch.zeros(1, dtype=torch.int64))
                scores[image, text] = model.match_logits(model.fuse(model.context(tokens[None]), [item])[0])[0, 1]
    return scores


def test_ranking_everything_equals_brute_force(model: VisionLanguageModel, gallery: Gallery) -> None:
    expected = brute_force(model, gallery)
    torch.testing.assert_close(rerank_texts(model, gallery, range(5), 99, CPU), expected)
    torch.testing.assert_close(rerank_images(model, gallery, range(12), 99, CPU), expected.T)


def test_shares_of_the_queries_together_are_the_whole(model: VisionLanguageModel, gallery: Gallery) -> None:
    whole = rerank_images(model, gallery, range(12), 2, CPU)
    parts = [rerank_images(model, gallery, part, 2, CPU) for part in (range(5), range(5, 12))]
    torch.testing.assert_close(torch.cat(parts), whole)
    torch.testing.assert_close(
        torch.cat([rerank_texts(model, gallery, part, 3, CPU) for part in (range(2), range(2, 5))]),
        rerank_texts(model, gallery, range(5), 3, CPU),
    )


def test_only_the_most_similar_are_ranked_again(model: VisionLanguageModel, gallery: Gallery) -> None:
    scores = rerank_texts(model, gallery, range(5), 3, CPU)
    ranked = scores != NOT_CANDIDATE
    assert (ranked.sum(dim=1) == 3).all()
    similarity = gallery.similarity()
    for image in range(5):
        assert similarity[image][ranked[image]].min() >= similarity[image][~ranked[image]].max()
