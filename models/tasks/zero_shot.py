"""Choosing among texts by contrastive features alone, without training: classes by their names, attributes by sentences about them.

Shapes: R rows (images, crops or regions), P prompts, C classes or attributes, L text tokens, D vision width, E feature width.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from models.config import ModelConfig
from models.tasks.base import Task
from models.vlm import VisionLanguageModel

Ensemble = Literal["mean", "max"]
"""How several prompts of a class become one score. mean: by the mean of their features, brought back to length 1, as for CLIP. max: by the
prompt that fits best, as in OVAD."""


class ZeroShot(Task):
    """Encoders with their contrastive projections. Nothing is trained."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.model = VisionLanguageModel(config, ["itc"])
        self.weights = {}


@torch.no_grad()
def prompt_features(model: VisionLanguageModel, batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Features [P, E] of prompts; batches of token ids [b, L] and mask [b, L]."""
    return torch.cat([model.text_features(model.encode_text(ids, mask)).float() for ids, mask in batches])


@torch.no_grad()
def image_features(model: VisionLanguageModel, images: Tensor) -> Tensor:
    """Features [R, E] of images or crops [R, 3, S, S], bytes or normalised."""
    return model.image_features(model.encode_images(images)[:, 0]).float()


@torch.no_grad()
def region_features(model: VisionLanguageModel, images: Tensor, image_index: Tensor, patch_mask: Tensor) -> Tensor:
    """Features [R, E] of regions of whole images, each image encoded once; arguments as of `VisionEncoder.encode_regions`."""
    _, regions = model.encode_regions(images, image_index, patch_mask)
    return model.image_features(regions.tokens).float()


def class_scores(features: Tensor, prompts: Tensor, counts: Sequence[int], ensemble: Ensemble) -> Tensor:
    """Cosines of rows with classes.

    Args:
        features: [R, E] of length 1.
        prompts: [P, E] of length 1, those of the first class first.
        counts: how many prompts each class has, P in all.
        ensemble: see there.

    Returns:
        [R, C].
    """
    if ensemble == "max":
        return torch.stack([part.max(dim=1).values for part in (features @ prompts.T).split(list(counts), dim=1)], dim=1)
    means = torch.stack([part.mean(dim=0) for part in prompts.split(list(counts))])
    return features @ F.normalize(means, dim=-1).T
