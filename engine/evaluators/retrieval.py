"""Two-stage retrieval on a gallery of images and captions.

Every rank encodes its share of the images and all texts (which cost about a hundredth of ranking), finds candidates for its share of the
queries, and scores the pairs of its share of the images; only features, candidates and the pairs' scores are exchanged.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.distributed import rank, world_size
from dataset.tasks.galleries import GallerySource
from dataset.tasks.retrieval import RetrievalGallery, batches_by_length
from engine.config.schema import RetrievalEvaluation
from engine.evaluators.base import Inputs, share_of, spread
from evaluation.report import RankedImage, ReportPanels, RetrievalPanel
from evaluation.retrieval import candidate_ranks, chance_recall, ranks, recalls
from models.candidates import PackedTexts, to_device
from models.tasks.ranking import (
    ImageTokens,
    Pairs,
    best_candidates,
    encode_texts,
    groups_of,
    precise,
    score_pairs,
    share_by_weight,
    similarity,
)
from models.vlm import VisionLanguageModel

SHOWN = 5
"""Retrieved images shown for a text."""
BLOCK = 2**24
"""Similarities computed at once."""
KEPT = {"fp32": torch.float32, "bf16": torch.bfloat16, "recompute": None}
BY_FEATURE = ("tr_r1", "ir_r1", "r_mean")
"""Numbers of the first stage that are reported."""

Right = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]
"""Which candidates are right for which queries, by their numbers in arrays that broadcast."""


@dataclass(frozen=True)
class Searched:
    """The first stage in one direction."""

    candidates: Tensor
    """[Q, k]"""
    ranks: NDArray[np.int64]
    """[Q] of the best right one among all."""


class RetrievalEvaluator:
    """Ranks texts for images and images for texts: by features, then the best again by the matching head."""

    def __init__(self, source: GallerySource, inputs: Inputs, settings: RetrievalEvaluation) -> None:
        """Open a gallery."""
        self.gallery = RetrievalGallery(source, inputs.image_size, frames=inputs.frames)
        self.inputs = inputs
        self.settings = settings
        self.owner = np.asarray(self.gallery.text_image)
        self.retrieved: tuple[Tensor, Tensor] | None = None
        """Candidate images of each text, [T, k], and their scores."""

    def __call__(self, model: VisionLanguageModel) -> dict[str, float]:
        """TR and IR recall after re-ranking, and `itc_*` by features alone, in percent."""
        settings = self.settings
        images, image_features = self._encode_images(model)
        texts, text_features = self._encode_texts(model)
        for_images = self._search(image_features, text_features, settings.top_k_texts or settings.top_k, self._owns)
        for_texts = self._search(text_features, image_features, settings.top_k_images or settings.top_k, self._owned)
        pairs = Pairs.union(for_images.candidates, for_texts.candidates, texts.lengths)
        scores = self._score(model, pairs, images, texts)
        self.retrieved = (for_texts.candidates, scores[pairs.of_texts])
        captions = np.bincount(self.owner, minlength=len(self.gallery.images))
        second = recalls(
            _reranked(for_images.candidates, scores[pairs.of_images], self._owns, len(self.owner) - captions),
            _reranked(for_texts.candidates, scores[pairs.of_texts], self._owned, np.full(len(self.owner), len(captions) - 1)),
            self.gallery.text_image,
        )
        first = recalls(for_images.ranks, for_texts.ranks, self.gallery.text_image)
        return second | {f"itc_{name}": first[name] for name in BY_FEATURE}

    def baselines(self) -> dict[str, dict[str, float]]:
        """Chance."""
        chance = chance_recall(len(self.gallery.images), self.gallery.text_image)
        return {"chance": chance | {f"itc_{name}": chance[name] for name in BY_FEATURE}}

    def panels(self, model: VisionLanguageModel, samples: int) -> ReportPanels:
        """The best images for some texts, evenly spread over the gallery."""
        assert self.retrieved is not None, "evaluation, which needs all ranks, comes first"
        chosen = spread(range(len(self.gallery.texts)), samples)
        return ReportPanels(retrieval=[self._panel(text, *(part[text] for part in self.retrieved)) for text in chosen])

    def _panel(self, text: int, candidates: Tensor, scores: Tensor) -> RetrievalPanel:
        best = scores.topk(min(SHOWN, len(scores)))
        ranked = [
            RankedImage(
                _still(self.gallery.images[image]),
                score,
                self.gallery.text_image[text] == image,
                self.gallery.texts[self.gallery.image_texts[image][0]],  # every image of a gallery has a caption
            )
            for image, score in zip(candidates[best.indices].tolist(), best.values.tolist(), strict=True)
        ]
        return RetrievalPanel(self.gallery.texts[text], ranked)

    @torch.no_grad()
    def _encode_images(self, model: VisionLanguageModel) -> tuple[ImageTokens, Tensor]:
        """This rank's images, kept as configured, and the features [I, E] of all."""
        count, size, device = len(self.gallery.images), self.settings.batch_size, self.inputs.device

        def encode(number: int) -> Tensor:
            batch = range(number * size, min((number + 1) * size, count))
            return model.encode_images(to_device(torch.stack([self.gallery.images[image] for image in batch]), device))

        images = ImageTokens(encode, size, KEPT[self.settings.keep_images], device)
        share = self.inputs.stoppable(share_of(-(-count // size)))  # whole batches: their cut depends on no number of ranks
        features = [precise(model.image_features(images.encode(number)[:, 0])).cpu() for number in share]
        return images, torch.cat([part for parts in self.inputs.interruption.gather(features) for part in parts])

    def _encode_texts(self, model: VisionLanguageModel) -> tuple[PackedTexts, Tensor]:
        inputs, settings = self.inputs, self.settings
        batches = batches_by_length(inputs.tokenizer, self.gallery.texts, inputs.max_tokens, settings.text_batch_size)
        keep_on = inputs.device if settings.keep_texts == "device" else torch.device("cpu")
        return encode_texts(model, inputs.stoppable(batches), inputs.device, keep_on)

    def _search(self, queries: Tensor, others: Tensor, k: int, right: Right) -> Searched:
        """Rank everything for every query by features [Q, E] and [C, E]."""
        size = max(1, BLOCK // len(others))
        numbers = np.arange(len(others))
        candidates, found = [], []
        for block in self.inputs.stoppable(share_of(-(-len(queries) // size))):
            asking = np.arange(block * size, min((block + 1) * size, len(queries)))
            scores = similarity(queries[asking], others)
            candidates.append(best_candidates(scores, k))
            found.append(ranks(scores.numpy(), right(asking[:, None], numbers)))
        rows = self.inputs.interruption.gather((candidates, found))  # from one rank each, so that all search for the same pairs
        return Searched(
            torch.cat([part for parts, _ in rows for part in parts]), np.concatenate([part for _, parts in rows for part in parts])
        )

    def _score(self, model: VisionLanguageModel, pairs: Pairs, images: ImageTokens, texts: PackedTexts) -> Tensor:
        """Matching logits of all pairs."""
        limit = pairs_at_once(self.settings, self.inputs.device)
        groups = groups_of(pairs.counts, limit)
        weights = [int(pairs.counts[group.start : group.stop].sum()) for group in groups]
        share = share_by_weight(weights, rank(), world_size())
        stop, device = self.inputs.interruption, self.inputs.device
        return torch.cat(stop.gather(score_pairs(model, pairs, groups[share.start : share.stop], images, texts, limit, device, stop.beat)))

    def _owns(self, images: NDArray[np.int64], texts: NDArray[np.int64]) -> NDArray[np.bool_]:
        return self.owner[texts] == images

    def _owned(self, texts: NDArray[np.int64], images: NDArray[np.int64]) -> NDArray[np.bool_]:
        return self.owner[texts] == images


def _still(image: Tensor) -> NDArray[np.uint8]:
    """An image [3, S, S], or the frames of a clip [F, 3, S, S] side by side, as [S, S or F*S, 3]."""
    return (image if image.dim() == 3 else torch.cat(list(image), dim=2)).permute(1, 2, 0).numpy()


def pairs_at_once(settings: RetrievalEvaluation, device: torch.device) -> int:
    """How many pairs are fused at once."""
    return settings.pair_batch_size or (64 if device.type == "cpu" else 1024)


def _reranked(candidates: Tensor, scores: Tensor, right: Right, wrong: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rank of each query's best right candidate [Q] after the second stage, of candidates [Q, k]; see `candidate_ranks`."""
    return candidate_ranks(scores.numpy(), right(np.arange(len(candidates))[:, None], candidates.numpy()), wrong)
