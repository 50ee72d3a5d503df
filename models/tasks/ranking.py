"""Two-stage ranking of a gallery (X2-VLM section 4.2): candidates by features, then their order by the matching head.

Both directions' candidates are one set of pairs, so a pair that an image and a text both want is scored once. Work goes image by image: an
image's keys and values are projected once for all pairs of both directions.

Candidates and scores do not depend on how the work is shared out: blocks of queries, batches of images and groups of pairs are cut by their
sizes alone, and ranks take whole ones. On machines and thread counts that compute alike, the numbers are equal bit by bit.

Shapes: I images, T texts, Q queries, C what they search, k candidates of a query, M pairs, E feature width, D vision width, H text width.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from models.candidates import PackedTexts, match_candidates, to_device
from models.vlm import VisionLanguageModel

NEVER = float("-inf")


@torch.no_grad()
def encode_texts(
    model: VisionLanguageModel, batches: Iterable[tuple[Tensor, Tensor, Tensor]], device: torch.device, keep_on: torch.device
) -> tuple[PackedTexts, Tensor]:
    """All texts of a gallery.

    Args:
        model: text encoder and projection.
        batches: numbers [R] in the gallery, token ids [R, L] and mask [R, L], True for tokens, which stand on the left. Every text once, in
            any order; least is computed where the texts of a batch have about the same length.
        device: where to compute.
        keep_on: the device that keeps the states.

    Returns:
        Their states, and features [T, E] on the CPU.
    """
    states, features, numbers, lengths = [], [], [], []
    for which, ids, mask in batches:
        encoded = model.encode_text(to_device(ids, device), to_device(mask, device))
        features.append(precise(model.text_features(encoded)))
        inside = mask.flatten().nonzero().squeeze(1)
        states.append(encoded.flatten(0, 1)[to_device(inside, device)].to(keep_on))
        numbers.append(which)
        lengths.append(mask.sum(dim=1))
    order = torch.cat(numbers).argsort()
    stored = torch.cat(lengths)
    starts = stored.cumsum(0) - stored
    return PackedTexts(torch.cat(states), starts[order], stored[order]), torch.cat(features).cpu()[order]


class ImageTokens:
    """The tokens of a gallery's images, batch by batch: kept on the CPU, or encoded again when they are wanted.

    Args:
        encode: gives the tokens [b, 1+N, D] of a batch by its number.
        batch_size: images in a batch; the last may have fewer.
        keep: dtype of what is kept; None keeps nothing.
        device: where tokens are wanted.
    """

    def __init__(self, encode: Callable[[int], Tensor], batch_size: int, keep: torch.dtype | None, device: torch.device) -> None:
        self._encode = encode
        self._batch_size = batch_size
        self._keep = keep
        self._device = device
        self._kept: dict[int, Tensor] = {}
        self._last: tuple[int, Tensor] | None = None

    def encode(self, number: int) -> Tensor:
        """Encode a batch and keep it as configured; what comes back is not rounded."""
        tokens = self._encode(number)
        if self._keep is not None:
            self._kept[number] = tokens.to("cpu", self._keep)
        return tokens

    def of(self, images: range) -> Tensor:
        """[len(images), 1+N, D] of neighbouring images, on the device."""
        size = self._batch_size
        parts = []
        for number in range(images.start // size, (images.stop - 1) // size + 1):
            first = number * size
            parts.append(to_device(self._batch(number)[max(images.start - first, 0) : images.stop - first], self._device))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _batch(self, number: int) -> Tensor:
        if number in self._kept:
            return self._kept[number]
        if self._last is None or self._last[0] != number:
            self._last = None  # room for the new one
            tokens = self._encode(number)
            # a batch that another rank keeps is rounded as there
            self._last = (number, tokens if self._keep is None else tokens.to(self._keep))
        return self._last[1]


def similarity(queries: Tensor, others: Tensor) -> Tensor:
    """[Q, C] cosine similarities of features [Q, E] and [C, E], never in less than their own precision."""
    with torch.autocast(queries.device.type, enabled=False):
        return queries @ others.T


def best_candidates(scores: Tensor, k: int) -> Tensor:
    """The k most similar candidates of each query; of equally similar ones those with the lowest numbers.

    Args:
        scores: [Q, C] similarities; what is not a number comes last.
        k: at most C are taken.

    Returns:
        [Q, min(k, C)] in the order of their numbers.
    """
    scores = scores.nan_to_num(NEVER)
    k = min(k, scores.shape[1])
    least = scores.topk(k, dim=1).values[:, -1:]
    above, equal = scores > least, scores == least
    taken = above | (equal & (equal.cumsum(dim=1) <= k - above.sum(dim=1, keepdim=True)))  # k in every row
    return taken.nonzero()[:, 1].view(-1, k)


@dataclass(frozen=True)
class Pairs:
    """What both directions want scored, each pair once, image by image."""

    image: Tensor
    """[M] ascending."""
    text: Tensor
    """[M] those of an image from the shortest to the longest."""
    counts: Tensor
    """[I] pairs of each image."""
    of_images: Tensor
    """[I, k] the pair of each image's candidate texts."""
    of_texts: Tensor
    """[T, k] the pair of each text's candidate images."""

    @classmethod
    def union(cls, texts: Tensor, images: Tensor, lengths: Tensor) -> "Pairs":
        """Pairs of each image's candidate `texts` [I, k] and of each text's candidate `images` [T, k]; texts have `lengths` [T]."""
        size = len(images)
        by_length = lengths.argsort(stable=True)
        place = torch.empty_like(by_length)
        place[by_length] = torch.arange(size)
        wanted = [torch.arange(len(texts))[:, None] * size + place[texts], images * size + place[:, None]]
        keys, where = torch.cat([part.flatten() for part in wanted]).unique(return_inverse=True)
        image = keys // size
        of_images, of_texts = where.split([texts.numel(), images.numel()])
        counts = image.bincount(minlength=len(texts))
        return cls(image, by_length[keys % size], counts, of_images.view(texts.shape), of_texts.view(images.shape))


def groups_of(counts: Tensor, limit: int) -> list[range]:
    """Neighbouring images whose pairs [I] together are no more than `limit`; an image with more is alone."""
    groups: list[range] = []
    start, total = 0, 0
    for image, count in enumerate(counts.tolist()):
        if image > start and total + count > limit:
            groups.append(range(start, image))
            start, total = image, 0
        total += count
    return [*groups, range(start, len(counts))]


def share_by_weight(weights: list[int], rank: int, world: int) -> range:
    """A rank's neighbouring share of items of these weights, about as heavy as the others'; the shares in rank order are all items."""
    ends = torch.tensor(weights).cumsum(0)
    middles = (ends - torch.tensor(weights) / 2) * world / ends[-1]  # an item goes where its middle lies
    cuts = torch.searchsorted(middles.contiguous(), torch.tensor([rank, rank + 1], dtype=middles.dtype)).tolist()
    return range(cuts[0], len(weights) if rank + 1 == world else cuts[1])


@runtime_checkable
class Matching(Protocol):
    """A model with a way of its own to match images with candidate texts."""

    def match_candidates(self, images: Any, tokens: Tensor, lengths: Tensor, counts: Tensor) -> Tensor:
        """As the function of this name, of what the model's `context` gives."""
        ...


@torch.no_grad()
def score_pairs(
    model: VisionLanguageModel,
    pairs: Pairs,
    groups: list[range],
    images: ImageTokens,
    texts: PackedTexts,
    limit: int,
    device: torch.device,
    each: Callable[[], None] = lambda: None,
) -> Tensor:
    """Matching logits of the pairs of some groups of images.

    Args:
        model: in evaluation mode.
        pairs: all pairs.
        groups: neighbouring images, group after group.
        images: their tokens.
        texts: all texts.
        limit: pairs fused at once.
        device: where to compute.
        each: called before every group.

    Returns:
        [pairs of these groups] in the order of `pairs`, on the CPU.
    """
    scores = []
    match = model.match_candidates if isinstance(model, Matching) else partial(match_candidates, model)
    starts = pairs.counts.cumsum(0) - pairs.counts
    for group in groups:
        each()
        context = model.context(images.of(group).to(model.dtype))
        counts = pairs.counts[group.start : group.stop]
        begin = int(starts[group.start])
        chosen = pairs.text[begin : begin + int(counts.sum())]
        for part in chosen.split(limit):  # more than one only where the group is a single image
            counts = counts if len(part) == len(chosen) else torch.tensor([len(part)])
            states = texts.select(part, device).to(model.dtype)
            scores.append(match(context, states, texts.lengths[part], counts))
    return precise(torch.cat(scores)).cpu() if scores else torch.empty(0)


def precise(values: Tensor) -> Tensor:
    """In float32, or in what is more precise already."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
