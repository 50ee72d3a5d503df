"""Two-stage ranking."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models.candidates import PackedTexts
from models.tasks.ranking import ImageTokens, Pairs, best_candidates, encode_texts, groups_of, score_pairs, share_by_weight, similarity
from models.vlm import FusionPass, VisionLanguageModel
from task_batches import ranking_model

CPU = torch.device("cpu")
IMAGES, BATCH = 5, 2


@pytest.fixture(scope="module")
def model() -> VisionLanguageModel:
    return ranking_model(vision_width=16, fusion_layers=2)


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randint(0, 256, (IMAGES, 3, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.fixture(scope="module")
def ids() -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(5, 40, (length,), generator=generator) for length in (3, 8, 5, 5, 2, 7, 8, 3, 4, 6, 2, 9)]


@pytest.fixture(scope="module")
def texts(model: VisionLanguageModel, ids: list[Tensor]) -> tuple[PackedTexts, Tensor]:
    """Encoded from the shortest to the longest, in padded batches."""
    order = torch.tensor([len(row) for row in ids]).argsort()
    batches = []
    for chosen in order.split(5):
        rows = torch.nn.utils.rnn.pad_sequence([ids[number] for number in chosen], batch_first=True)
        batches.append((chosen, rows, rows > 0))
    return encode_texts(model, iter(batches), CPU, CPU)


def image_tokens(model: VisionLanguageModel, pixels: Tensor, keep: torch.dtype | None = torch.float32) -> ImageTokens:
    def encode(number: int) -> Tensor:
        with torch.no_grad():
            return model.encode_images(pixels[number * BATCH : (number + 1) * BATCH])

    return ImageTokens(encode, BATCH, keep, CPU)


def all_pairs(lengths: Tensor) -> Pairs:
    """Every text is a candidate of every image and the other way round."""
    count = len(lengths)
    return Pairs.union(torch.arange(count).expand(IMAGES, -1), torch.arange(IMAGES).expand(count, -1), lengths)


@pytest.fixture(scope="module")
def brute_force(model: VisionLanguageModel, pixels: Tensor, ids: list[Tensor]) -> Tensor:
    """Matching logit of every pair, each computed alone from pixels and ids, [I, T]."""
    scores = torch.empty(IMAGES, len(ids))
    with torch.no_grad():
        for image in range(IMAGES):
            vision = model.context(model.encode_images(pixels[image : image + 1]))
            for text, row in enumerate(ids):
                mask = torch.ones(1, len(row), dtype=torch.bool)
                item = FusionPass(model.encode_text(row[None], mask), mask, torch.zeros(1, dtype=torch.int64))
                scores[image, text] = model.match_logits(model.fuse(vision, [item])[0])[0, 1]
    return scores


@pytest.mark.parametrize("limit", [3, 12, 30, 1000])
def test_scoring_everything_equals_brute_force_whatever_is_fused_at_once(
    model: VisionLanguageModel, pixels: Tensor, texts: tuple[PackedTexts, Tensor], brute_force: Tensor, limit: int
) -> None:
    pairs = all_pairs(texts[0].lengths)
    scores = score_pairs(model, pairs, groups_of(pairs.counts, limit), image_tokens(model, pixels), texts[0], limit, CPU)
    torch.testing.assert_close(scores[pairs.of_images], brute_force)
    torch.testing.assert_close(scores[pairs.of_texts], brute_force.T)


def test_text_features_come_back_in_the_gallery_s_order(
    model: VisionLanguageModel, ids: list[Tensor], texts: tuple[PackedTexts, Tensor]
) -> None:
    for row, feature in zip(ids, texts[1], strict=True):
        with torch.no_grad():
            states = model.encode_text(row[None], torch.ones(1, len(row), dtype=torch.bool))
            torch.testing.assert_close(feature, model.text_features(states)[0])


@pytest.mark.parametrize("world", [2, 3, 7])
def test_shares_of_the_ranks_together_are_the_whole_bit_for_bit(
    model: VisionLanguageModel, pixels: Tensor, texts: tuple[PackedTexts, Tensor], world: int
) -> None:
    pairs = all_pairs(texts[0].lengths)
    groups = groups_of(pairs.counts, 20)
    weights = [int(pairs.counts[group.start : group.stop].sum()) for group in groups]

    def scored(rank: int, world: int) -> Tensor:
        share = share_by_weight(weights, rank, world)
        tokens = image_tokens(model, pixels)
        return score_pairs(model, pairs, groups[share.start : share.stop], tokens, texts[0], 20, CPU)

    assert torch.equal(torch.cat([scored(rank, world) for rank in range(world)]), scored(0, 1))


def test_an_image_is_projected_once_for_both_directions(
    model: VisionLanguageModel, pixels: Tensor, texts: tuple[PackedTexts, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    projected: list[int] = []
    project: Callable[[Tensor], tuple[Tensor, Tensor]] = model.fusion.blocks()[0].project
    monkeypatch.setattr(model.fusion.blocks()[0], "project", lambda tokens: (projected.append(len(tokens)), project(tokens))[1])
    pairs = all_pairs(texts[0].lengths)
    score_pairs(model, pairs, groups_of(pairs.counts, 5), image_tokens(model, pixels), texts[0], 5, CPU)
    assert projected == [1] * IMAGES


@pytest.mark.parametrize(("keep", "tolerance"), [(None, 0.0), (torch.bfloat16, 0.05)])
def test_tokens_that_are_not_kept_or_kept_rounded_give_the_same_scores(
    model: VisionLanguageModel, pixels: Tensor, texts: tuple[PackedTexts, Tensor], keep: torch.dtype | None, tolerance: float
) -> None:
    pairs = all_pairs(texts[0].lengths)
    kept = image_tokens(model, pixels)
    for number in range(3):
        kept.encode(number)
    expected = score_pairs(model, pairs, groups_of(pairs.counts, 30), kept, texts[0], 30, CPU)
    found = score_pairs(model, pairs, groups_of(pairs.counts, 30), image_tokens(model, pixels, keep), texts[0], 30, CPU)
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def test_a_batch_that_another_rank_keeps_is_rounded_as_there(model: VisionLanguageModel, pixels: Tensor) -> None:
    here, elsewhere = (image_tokens(model, pixels, torch.bfloat16) for _ in range(2))
    assert here.encode(0).dtype == torch.float32
    assert torch.equal(here.of(range(2)), elsewhere.of(range(2)))
    assert torch.equal(here.of(range(1, 4)), elsewhere.of(range(1, 4)))  # of a kept and another batch


def test_the_most_similar_are_candidates_and_ties_go_to_the_first() -> None:
    scores = torch.tensor([[0.1, 0.5, 0.3, 0.5, 0.5], [0.2, 0.2, 0.2, 0.2, 0.9], [0.0, -1.0, float("nan"), 1.0, -2.0]])
    assert best_candidates(scores, 2).tolist() == [[1, 3], [0, 4], [0, 3]]
    assert best_candidates(torch.full((2, 3), float("nan")), 2).tolist() == [[0, 1]] * 2
    assert best_candidates(scores, 99).tolist() == [list(range(5))] * 3
    drawn = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(best_candidates(drawn, 7), drawn.topk(7).indices.sort().values)


def test_a_pair_that_both_directions_want_is_scored_once() -> None:
    lengths = torch.tensor([5, 3, 4])
    pairs = Pairs.union(torch.tensor([[0, 1], [1, 2]]), torch.tensor([[0], [0], [0]]), lengths)
    assert pairs.image.tolist() == [0, 0, 0, 1, 1]
    assert pairs.text.tolist() == [1, 2, 0, 1, 2]  # those of an image from the shortest to the longest
    assert pairs.counts.tolist() == [3, 2]
    assert pairs.text[pairs.of_images].tolist() == [[0, 1], [1, 2]]
    assert pairs.image[pairs.of_images].tolist() == [[0, 0], [1, 1]]
    assert pairs.image[pairs.of_texts].tolist() == [[0], [0], [0]]
    assert pairs.text[pairs.of_texts].flatten().tolist() == [0, 1, 2]


def test_groups_hold_whole_images_up_to_the_limit() -> None:
    assert groups_of(torch.tensor([2, 3, 9, 1, 1, 1]), 5) == [range(2), range(2, 3), range(3, 6)]


def test_shares_are_about_equally_heavy() -> None:
    weights = [1, 1, 1, 1, 4, 1, 1, 1, 1, 4]
    shares = [share_by_weight(weights, rank, 2) for rank in range(2)]
    assert [item for share in shares for item in share] == list(range(10))
    assert [sum(weights[item] for item in share) for share in shares] == [8, 8]
    assert [len(share_by_weight([3], rank, 4)) for rank in range(4)].count(1) == 1


def test_similarities_are_not_rounded_under_autocast() -> None:
    left, right = torch.randn(3, 8), torch.randn(4, 8)
    expected = similarity(left, right)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(similarity(left, right), expected)
