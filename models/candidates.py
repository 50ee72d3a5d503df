"""Matching of many candidate texts with a few images, as ranking needs it: nothing is computed twice and next to nothing is padded.

Shapes: T texts, M pairs, S tokens of the pairs' texts together, B images, P = 1+N visual tokens, L longest text, D vision width,
H text width, h heads, d = H/h.

Texts lie packed, one after another. What works token by token (projections, norms, MLP: nearly all of the work) runs over packed tokens;
only attention itself sees rows. In self-attention a row is a text. In cross-attention a row is an *image*, whose queries are the tokens of
all its candidate texts, so that an image's keys and values are neither projected nor copied for each of them.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from models.context import Seen, VisionContext
from models.fusion import FusionLayer
from models.packing import Rows
from models.vlm import VisionLanguageModel


@dataclass(frozen=True)
class PackedTexts:
    """The states of texts of different lengths without padding."""

    states: Tensor
    """[sum of lengths, H], the texts in any order."""
    starts: Tensor
    """[T] position of each text's first token in `states`; on the CPU."""
    lengths: Tensor
    """[T] tokens of each text; on the CPU."""

    def select(self, texts: Tensor, device: torch.device) -> Tensor:
        """The tokens [S, H] of these texts [M], one text after another."""
        positions = _positions(self.starts[texts], self.lengths[texts])
        return to_device(self.states[to_device(positions, self.states.device)], device)


class Laid(NamedTuple):
    """Packed tokens as rows of equal width."""

    rows: Rows
    mask: Tensor | None
    """[rows, 1, 1, width] True for tokens; None where all rows are full."""

    @classmethod
    def of(cls, lengths: Tensor, device: torch.device) -> "Laid":
        """Rows of these lengths [rows] (on the CPU, all at least 1), one after another in the list of tokens."""
        count, width = len(lengths), int(lengths.max())
        inside = torch.arange(width) < lengths[:, None]  # [rows, width]
        if bool(inside.all()):
            return cls(Rows(count, width), None)
        places = inside.flatten().nonzero().squeeze(1)
        return cls(Rows(count, width, to_device(places, device)), to_device(inside, device)[:, None, None, :])


@torch.no_grad()
def match_candidates(model: VisionLanguageModel, images: VisionContext, tokens: Tensor, lengths: Tensor, counts: Tensor) -> Tensor:
    """Matching logits (class 1) of images with their candidate texts; the model must be in evaluation mode.

    Args:
        model: fusion encoder and matching head.
        images: the context of B whole images.
        tokens: [S, H] packed states of the texts: those of the first image's candidates, then those of the second's.
        lengths: [M] tokens of each text; on the CPU.
        counts: [B] candidates of each image, at least 1; on the CPU.

    Returns:
        [M] logits.
    """
    device = tokens.device
    ends = lengths.cumsum(0)
    of_image = ends[counts.cumsum(0) - 1].diff(prepend=torch.zeros(1, dtype=torch.int64))  # [B] tokens of all its candidates
    texts, whole, single = Laid.of(lengths, device), Laid.of(of_image, device), Laid.of(torch.ones_like(lengths), device)
    *most, last = model.fusion.blocks()
    for index, layer in enumerate(most):
        tokens = _layer(layer, tokens, (texts, texts), tokens, images.layer(index).rows(None), whole)
    first = tokens[to_device(ends - lengths, device)]  # [M, H]: the matching head reads position 0 alone
    fused = _layer(last, tokens, (texts, single), first, images.layer(len(most)).rows(None), Laid.of(counts, device))
    return model.match_logits(fused[:, None])[:, 1]


def _layer(layer: FusionLayer, tokens: Tensor, rows: tuple[Laid, Laid], queries: Tensor, seen: Seen, images: Laid) -> Tensor:
    """A fusion layer over packed tokens.

    Args:
        layer: the layer.
        tokens: [S, H] that are attended to.
        rows: texts as rows of `tokens`, and as rows of `queries`.
        queries: [Q, H] that attend: all tokens, or each text's first.
        seen: keys and values of the images.
        images: images as rows of `queries`.

    Returns:
        [Q, H].
    """
    texts, asking = rows
    own, cross = layer.self_attention, layer.cross_attention
    keys, values = (own.split(texts.rows.padded(projected)) for projected in (own.key(tokens), own.value(tokens)))
    mixed = own.mix(asking.rows.padded(own.query(queries)), keys, values, texts.mask)
    queries = layer.self_attention_norm(queries + own.output(asking.rows.flat(mixed)))
    mixed = cross.mix(images.rows.padded(cross.query(queries)), *seen)
    queries = layer.cross_attention_norm(queries + cross.output(images.rows.flat(mixed)))
    return layer.feed_forward(queries)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor there; on its way to a GPU the program does not wait."""
    if tensor.device == device or device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _positions(starts: Tensor, lengths: Tensor) -> Tensor:
    """[S] positions of runs that start at `starts` and are `lengths` long, one run after another."""
    ends = lengths.cumsum(0)
    return torch.repeat_interleave(starts - (ends - lengths), lengths) + torch.arange(int(lengths.sum()))
