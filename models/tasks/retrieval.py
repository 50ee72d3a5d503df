"""Image-text retrieval: contrastive and matching losses; ranking by features, re-ranking of the best by the matching head
(X2-VLM section 4.2).

Shapes: I images, T texts, k candidates, E feature width.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from common.distributed import GradientMode
from models.config import ModelConfig
from models.context import VisionContext
from models.tasks.base import Batch, Task
from models.tasks.contrast import DIRECT, Contrast
from models.tasks.losses import CONTRASTIVE, stream_losses
from models.tasks.rows import row_counts
from models.vlm import FusionPass, VisionLanguageModel

NOT_CANDIDATE = -100.0
"""Score of pairs outside the top k; below every matching logit."""


@dataclass(frozen=True)
class Gallery:
    """Everything encoded once, on the CPU: images as tokens, texts as states with their masks, and features of both."""

    tokens: Tensor
    """[I, 1+N, D]"""
    states: Tensor
    """[T, L, H] padded to the longest text."""
    mask: Tensor
    """[T, L]"""
    image_features: Tensor
    """[I, E]"""
    text_features: Tensor
    """[T, E]"""

    def similarity(self) -> Tensor:
        """[I, T] cosine similarities."""
        return self.image_features @ self.text_features.T


class Retrieval(Task):
    """Fine-tuning on pairs, and two-stage ranking."""

    def __init__(self, config: ModelConfig, weights: Mapping[str, float], mode: GradientMode) -> None:
        super().__init__()
        self.model = VisionLanguageModel(config, ["itc", "itm"])
        self.objectives = dict(weights)
        self.weights = {f"train/{name}": weight for name, weight in weights.items()}
        self.contrasts = not CONTRASTIVE.isdisjoint(weights)
        self.mode: GradientMode = mode

    def forward(self, batches: Mapping[str, Batch], contrast: Contrast = DIRECT) -> dict[str, Tensor]:
        """Losses of one micro-batch of pairs, as "train/itc" and "train/itm"."""
        contrast.begin("train")
        losses = stream_losses(self.model, batches["train"], self.objectives, self.mode, contrast=contrast)
        return {f"train/{name}": value for name, value in losses.items()}

    def row_counts(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        """See `Task.row_counts`."""
        counts = row_counts(batches["train"], self.objectives) if self.mode == "exact" else {}
        return {f"train/{name}": count for name, count in counts.items()}


@torch.no_grad()
def encode_gallery(
    model: VisionLanguageModel, images: Iterable[Tensor], texts: Iterable[tuple[Tensor, Tensor]], device: torch.device
) -> Gallery:
    """Encode images [b, 3, S, S] and texts (ids [b, L], mask [b, L]) batch by batch."""
    tokens, image_features, masks, states, features = [], [], [], [], []
    for batch in images:
        encoded = model.encode_images(batch.to(device))
        image_features.append(model.image_features(encoded[:, 0]).float().cpu())
        tokens.append(encoded.cpu())
    for ids, mask in texts:
        encoded = model.encode_text(ids.to(device), mask.to(device))
        features.append(model.text_features(encoded).float().cpu())
        states.append(encoded.cpu())
        masks.append(mask.cpu())
    length = max(mask.shape[1] for mask in masks)
    return Gallery(
        torch.cat(tokens),
        torch.cat([F.pad(item, (0, 0, 0, length - item.shape[1])) for item in states]),
        torch.cat([F.pad(item, (0, length - item.shape[1])) for item in masks]),
        torch.cat(image_features),
        torch.cat(features),
    )


@torch.no_grad()
def rerank_texts(
    model: VisionLanguageModel, gallery: Gallery, images: range, top_k: int, device: torch.device, each: Callable[[], None] = lambda: None
) -> Tensor:
    """Matching logits of each image's `top_k` most similar texts.

    Args:
        model: encoders and heads.
        gallery: all images and texts.
        images: the images to rank for, a share of all.
        top_k: candidates for each image; at most the number of texts.
        device: where to compute.
        each: called for every image, before it.

    Returns:
        [len(images), T]; NOT_CANDIDATE for other texts.
    """
    similarity = gallery.similarity()[images.start : images.stop]
    candidates = similarity.topk(min(top_k, similarity.shape[1]), dim=1).indices  # [i, k]
    scores = torch.full_like(similarity, NOT_CANDIDATE)
    for row, image in enumerate(images):
        each()
        vision = model.context(gallery.tokens[image : image + 1].to(device))  # one image's keys and values for all its candidates
        scores[row, candidates[row]] = _match(model, gallery, vision, candidates[row], torch.zeros_like(candidates[row]), device)
    return scores


@torch.no_grad()
def rerank_images(
    model: VisionLanguageModel, gallery: Gallery, texts: range, top_k: int, device: torch.device, each: Callable[[], None] = lambda: None
) -> Tensor:
    """Matching logits of each text's `top_k` most similar images, as [len(texts), I]; see `rerank_texts`.

    Works image by image, so that an image's keys and values are projected once for all texts that want it.
    """
    similarity = gallery.similarity().T[texts.start : texts.stop]
    candidates = similarity.topk(min(top_k, similarity.shape[1]), dim=1).indices  # [t, k]
    wanted = torch.zeros_like(similarity, dtype=torch.bool).scatter_(1, candidates, True)
    scores = torch.full_like(similarity, NOT_CANDIDATE)
    for image in range(similarity.shape[1]):
        each()
        rows = wanted[:, image].nonzero().squeeze(1)
        if len(rows):
            vision = model.context(gallery.tokens[image : image + 1].to(device))
            scores[rows, image] = _match(model, gallery, vision, rows + texts.start, torch.zeros_like(rows), device)
    return scores


def _match(
    model: VisionLanguageModel, gallery: Gallery, vision: VisionContext, texts: Tensor, view: Tensor, device: torch.device
) -> Tensor:
    """Matching logit of class 1 for each text with its view, [k] on the CPU."""
    mask = gallery.mask[texts]
    length = int(mask.sum(dim=1).max())  # these texts' longest, not the gallery's
    item = FusionPass(gallery.states[texts, :length].to(device), mask[:, :length].to(device), view.to(device), pooled=True)
    return model.match_logits(model.fuse(vision, [item])[0])[:, 1].float().cpu()
