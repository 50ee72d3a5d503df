"""Phrase-to-region scores and their hinge loss."""

import torch
from torch import Tensor

from models.objectives.phrase_grounding import grounding_scores, phrase_grounding_loss


def random_pairs(pairs: int = 4, length: int = 6, regions: int = 5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    phrase_mask = torch.zeros(pairs, length, dtype=torch.bool)
    phrase_mask[:, 2:5] = True
    region_mask = torch.ones(pairs, regions, dtype=torch.bool)
    return torch.randn(pairs, length, 8, generator=generator), phrase_mask, torch.randn(pairs, regions, 8, generator=generator), region_mask


def test_scores_equal_a_loop_over_phrases_and_their_three_best_regions() -> None:
    phrases, phrase_mask, regions, region_mask = random_pairs()
    region_mask[0, 2:] = False  # two regions only
    draws = torch.rand(phrase_mask.shape, generator=torch.Generator().manual_seed(1))
    found = grounding_scores(phrases, phrase_mask, regions, region_mask, draws)
    for pair in range(len(phrases)):
        chosen = []
        for place in torch.nonzero(phrase_mask[pair]).flatten().tolist():
            cosines = torch.cosine_similarity(phrases[pair, place], regions[pair, region_mask[pair]], dim=1)
            cosines = cosines.sort(descending=True).values[:3]
            chosen.append(cosines[int(draws[pair, place] * len(cosines))])
        torch.testing.assert_close(found[pair], torch.stack(chosen).mean())


def test_without_draws_every_phrase_takes_its_best_region() -> None:
    pairs = random_pairs()
    torch.testing.assert_close(grounding_scores(*pairs, None), grounding_scores(*pairs, torch.zeros(pairs[1].shape)))
    assert (grounding_scores(*pairs, None) >= grounding_scores(*pairs, torch.full(pairs[1].shape, 0.999))).all()


def test_the_order_of_phrases_and_of_regions_does_not_matter() -> None:
    phrases, phrase_mask, regions, region_mask = random_pairs()
    region_mask[1, 3] = False
    places, boxes = torch.tensor([5, 3, 0, 1, 4, 2]), torch.tensor([4, 2, 0, 3, 1])
    shuffled = grounding_scores(phrases[:, places], phrase_mask[:, places], regions[:, boxes], region_mask[:, boxes], None)
    torch.testing.assert_close(grounding_scores(phrases, phrase_mask, regions, region_mask, None), shuffled)


def test_padding_changes_neither_score_nor_receives_a_gradient() -> None:
    phrases, phrase_mask, regions, region_mask = random_pairs()
    expected = grounding_scores(phrases, phrase_mask, regions, region_mask, None)
    padded = torch.cat([regions, phrases[:, 2:4] * 9], dim=1).requires_grad_()  # regions that would fit best
    mask = torch.nn.functional.pad(region_mask, (0, 2))
    scores = grounding_scores(phrases, phrase_mask, padded, mask, None)
    torch.testing.assert_close(scores, expected)
    scores.sum().backward()
    assert padded.grad is not None
    assert padded.grad[:, :5].abs().sum() > 0
    assert padded.grad[:, 5:].abs().sum() == 0


def test_a_text_without_phrases_or_an_image_without_regions_scores_zero_with_a_finite_gradient() -> None:
    phrases, phrase_mask, regions, region_mask = random_pairs()
    phrase_mask[0], region_mask[1] = False, False
    phrases.requires_grad_()
    scores = grounding_scores(phrases, phrase_mask, regions, region_mask, torch.rand(phrase_mask.shape))
    scores.sum().backward()
    assert scores[0] == scores[1] == 0
    assert phrases.grad is not None
    assert torch.isfinite(phrases.grad).all()
    assert phrases.grad[:2].abs().sum() == 0 and phrases.grad[2:].abs().sum() > 0


def test_images_with_fewer_regions_than_candidates_have_scores() -> None:
    phrases, phrase_mask, regions, region_mask = random_pairs(regions=1)
    scores = grounding_scores(phrases, phrase_mask, regions, region_mask, torch.full(phrase_mask.shape, 0.99))
    torch.testing.assert_close(scores, grounding_scores(phrases, phrase_mask, regions, region_mask, None))


def test_the_hinge_asks_for_the_margin_and_no_more() -> None:
    positive = torch.tensor([0.9, 0.5, 0.1, -1.0], requires_grad=True)
    negative = torch.tensor([0.1, 0.5, 0.2, 1.0])
    valid = torch.tensor([True, True, True, False])
    loss = phrase_grounding_loss(positive, negative, valid, 0.2, "exact")
    torch.testing.assert_close(loss, torch.tensor((0.0 + 0.2 + 0.3) / 3))
    loss.backward()
    assert positive.grad is not None
    torch.testing.assert_close(positive.grad, torch.tensor([0.0, -1 / 3, -1 / 3, 0.0]))


def test_no_valid_row_gives_a_zero_that_keeps_the_graph() -> None:
    positive = torch.randn(3, requires_grad=True)
    loss = phrase_grounding_loss(positive, torch.randn(3), torch.zeros(3, dtype=torch.bool), 0.2, "exact")
    assert loss == 0
    loss.backward()
    assert positive.grad is not None and not positive.grad.any()
