"""Choosing among prompts by contrastive features."""

import torch
from torch.nn import functional as F

from models.tasks.zero_shot import ZeroShot, class_scores, image_features, region_features
from task_batches import small_config


def test_a_region_of_all_patches_is_the_image_and_its_features_are_of_length_one() -> None:
    model = ZeroShot(small_config()).model.eval()
    images = torch.randn(2, 3, 16, 16)
    whole = region_features(model, images, torch.tensor([1, 0, 1]), torch.ones(3, 4, dtype=torch.bool))
    torch.testing.assert_close(whole, image_features(model, images)[[1, 0, 1]])
    part = torch.tensor([[True, False, False, False]])
    assert not torch.allclose(region_features(model, images, torch.tensor([0]), part), whole[1:2])
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(3))


def test_prompts_of_a_class_count_by_their_mean_or_by_the_best() -> None:
    features, prompts = (F.normalize(torch.randn(count, 8), dim=1) for count in (3, 5))
    cosines = features @ prompts.T
    best = class_scores(features, prompts, [2, 3], "max")
    torch.testing.assert_close(best, torch.stack([cosines[:, :2].amax(1), cosines[:, 2:].amax(1)], dim=1))
    mean = class_scores(features, prompts, [2, 3], "mean")
    torch.testing.assert_close(mean[:, 0], features @ F.normalize(prompts[:2].mean(0), dim=0))
