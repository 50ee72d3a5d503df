"""The cross-modal encoder: text states attend to an image, or to a region of it.

Shapes: B images, R regions, V = B + R views, M text rows, N patches, P = 1+N visual tokens, L text tokens, D vision width, H text width,
h heads, d = H/h.

A *view* is what a text row may attend to. The first B views are the whole images; with regions, R more follow, each the patches of its
region with the region's own global token. Keys and values are projected once for each image and serve every pass over it: the true pair,
hard negatives, masked language modelling, box prediction, and all its regions.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.config import FusionConfig, TextConfig
from models.vision.regions import RegionViews


class Seen(NamedTuple):
    """What M text rows may attend to in one layer."""

    keys: Tensor
    """[M, h, P, d]"""
    values: Tensor
    """[M, h, P, d]"""
    mask: Tensor | None
    """[M, 1, 1, P] True where attending is allowed; None for everywhere."""

    def part(self, rows: slice) -> "Seen":
        """The same for some of the rows."""
        return Seen(self.keys[rows], self.values[rows], None if self.mask is None else self.mask[rows])


@dataclass(frozen=True)
class VisionContext:
    """Every fusion layer's projected keys and values, computed once and shared by all passes."""

    keys: list[Tensor]
    """For each layer [B, h, P, d]; [V, h, P, d] where every view has tokens of its own."""
    values: list[Tensor]
    region_keys: list[Tensor] | None = None
    """For each layer [V, h, 1, d]: the keys of each view's global token; None unless regions share their image's patches."""
    region_values: list[Tensor] | None = None
    image_index: Tensor | None = None
    """[V] the image of each view; None unless regions share their image's patches."""
    mask: Tensor | None = None
    """[V, P] True where a view may be attended to; None where all of it may."""

    def rows(self, layer: int, view: Tensor | None) -> Seen:
        """What text rows that attend to `view` [M] see in one layer; without a view row i attends to whole image i of no regions."""
        mask = None if self.mask is None else (self.mask if view is None else self.mask[view])[:, None, None, :]
        if view is None:
            return Seen(self.keys[layer], self.values[layer], mask)
        if self.region_keys is None or self.region_values is None or self.image_index is None:
            return Seen(self.keys[layer][view], self.values[layer][view], mask)
        image = self.image_index[view]
        keys = torch.cat([self.region_keys[layer][view], self.keys[layer][image, :, 1:]], dim=2)
        values = torch.cat([self.region_values[layer][view], self.values[layer][image, :, 1:]], dim=2)
        return Seen(keys, values, mask)


class Attention(nn.Module):
    """Multi-head attention whose keys and values may come from elsewhere and be projected beforehand."""

    def __init__(self, width: int, source_width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(source_width, width)
        self.value = nn.Linear(source_width, width)
        self.output = nn.Linear(width, width)

    def _split(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.heads, -1)).transpose(-3, -2)  # [.., L, H] -> [.., h, L, d]

    def project(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, h, P, d] of source states [B, P, D]."""
        return self._split(self.key(source)), self._split(self.value(source))

    def forward(self, states: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Attend from states [M, L, H] to keys and values [M, h, P, d]; mask [M, 1, 1, P] is True where attending is allowed."""
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(self._split(self.query(states)), keys, values, attn_mask=mask, dropout_p=dropout)
        return self.output(mixed.transpose(-3, -2).flatten(-2))

    def probabilities(self, states: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        """Attention probabilities [M, h, L, P], for looking at."""
        scores = self._split(self.query(states)) @ keys.transpose(-2, -1) / keys.shape[-1] ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return scores.softmax(dim=-1)


class FusionLayer(nn.Module):
    """BERT layer (post-norm) with cross-attention between self-attention and MLP."""

    def __init__(self, text: TextConfig, config: FusionConfig, vision_width: int) -> None:
        super().__init__()
        width, heads, intermediate = text.width, config.heads or text.heads, config.intermediate or text.intermediate
        eps = text.layer_norm_eps if config.layer_norm_eps is None else config.layer_norm_eps
        self.self_attention = Attention(width, width, heads, text.dropout)
        self.self_attention_norm = nn.LayerNorm(width, eps=eps)
        self.cross_attention = Attention(width, vision_width, heads, text.dropout)
        self.cross_attention_norm = nn.LayerNorm(width, eps=eps)
        self.mlp_in = nn.Linear(width, intermediate)
        self.mlp_out = nn.Linear(intermediate, width)
        self.mlp_norm = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(text.dropout)

    def project(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, h, P, d] that the layer's cross-attention sees of source states [B, P, D]."""
        return self.cross_attention.project(source)

    def forward(self, states: Tensor, text_mask: Tensor, vision: Seen | None, pooled: bool = False) -> Tensor:
        """The whole layer.

        Args:
            states: [M, L, H].
            text_mask: [M, 1, 1, L] True for tokens.
            vision: what each row may attend to; None skips cross-attention.
            pooled: compute position 0 alone; it still attends to all text.

        Returns:
            [M, L, H]; [M, 1, H] when pooled.
        """
        states = self.attend_to_text(states, text_mask, pooled)
        if vision is not None:
            states = self.attend_to_vision(states, vision)
        return self.feed_forward(states)

    def attend_to_text(self, states: Tensor, text_mask: Tensor, pooled: bool = False) -> Tensor:
        """Self-attention sub-layer, [M, L, H] -> [M, L, H], or [M, 1, H] when pooled."""
        keys, values = self.self_attention.project(states)
        queries = states[:, :1] if pooled else states
        return self.self_attention_norm(queries + self.dropout(self.self_attention(queries, keys, values, text_mask)))

    def attend_to_vision(self, states: Tensor, vision: Seen) -> Tensor:
        """Cross-attention sub-layer, [M, L, H] -> [M, L, H]."""
        return self.cross_attention_norm(states + self.dropout(self.cross_attention(states, *vision)))

    def feed_forward(self, states: Tensor) -> Tensor:
        """MLP sub-layer, [M, L, H] -> [M, L, H]."""
        return self.mlp_norm(states + self.dropout(self.mlp_out(F.gelu(self.mlp_in(states)))))


class Fusion(nn.Module):
    """The cross-modal encoder."""

    def __init__(self, text: TextConfig, config: FusionConfig, vision_width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([FusionLayer(text, config, vision_width) for _ in range(config.layers)])
        self.apply(_initialize)

    def blocks(self) -> list[FusionLayer]:
        """Its layers, in order: the units that are compiled, recomputed or sharded by themselves."""
        return [layer for layer in self.layers if isinstance(layer, FusionLayer)]

    def context(self, tokens: Tensor, regions: RegionViews | None = None, mask: Tensor | None = None) -> VisionContext:
        """Project keys and values of all layers, once.

        Args:
            tokens: [B, P, D] of whole images, or states of texts that other texts attend to.
            regions: views that follow the B whole images.
            mask: [B, P] True where tokens may be attended to; None for all. Only without regions.

        Returns:
            The context of V = B (+ R) views.
        """
        if regions is not None and regions.patches is not None:
            own = torch.cat([regions.tokens[:, None], regions.patches], dim=1)
            return self.context(torch.cat([tokens, own]), mask=_view_masks(tokens, regions))
        pairs = [layer.project(tokens) for layer in self.blocks()]
        keys, values = [key for key, _ in pairs], [value for _, value in pairs]
        if regions is None:
            return VisionContext(keys, values, mask=mask)
        region_pairs = [layer.project(regions.tokens[:, None]) for layer in self.blocks()]  # [R, h, 1, d]
        return VisionContext(
            keys,
            values,
            [torch.cat([key[:, :, :1], region]) for key, (region, _) in zip(keys, region_pairs, strict=True)],
            [torch.cat([value[:, :, :1], region]) for value, (_, region) in zip(values, region_pairs, strict=True)],
            torch.cat([torch.arange(tokens.shape[0], device=tokens.device), regions.image_index]),
            _view_masks(tokens, regions),
        )

    def forward(
        self, text: Tensor, text_mask: Tensor, vision: VisionContext | None, view: Tensor | None = None, pooled: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Fuse text rows with the views that they attend to.

        Matching and box heads read position 0 alone, so the last layer computes no other position of the rows that are for them.

        Args:
            text: [M, L, H] states of the text encoder.
            text_mask: [M, L] True for tokens.
            vision: shared keys and values; None skips cross-attention (text-only language modelling).
            view: [M] the view of each row; None when row i attends to whole image i and there are no regions.
            pooled: of how many rows, counted from the first, only position 0 is wanted.

        Returns:
            Position 0 of the first rows, [pooled, 1, H], which stands for the pair; all positions of the others, [M - pooled, L, H].
        """
        keep = text_mask.bool()[:, None, None, :]
        *most, last = self.blocks()
        for index, layer in enumerate(most):
            text = layer(text, keep, None if vision is None else vision.rows(index, view))
        seen = None if vision is None else vision.rows(len(most), view)
        heads, others = slice(pooled), slice(pooled, None)
        first = last(text[heads], keep[heads], seen and seen.part(heads), pooled=True) if pooled else text[heads, :1]
        rest = last(text[others], keep[others], seen and seen.part(others)) if pooled < len(text) else text[others]
        return first, rest

    @torch.no_grad()
    def attention_maps(self, text: Tensor, text_mask: Tensor, vision: VisionContext, view: Tensor, layer: int) -> Tensor:
        """Cross-attention probabilities [M, h, L, P] of one layer (negative counts from the last), for looking at."""
        keep = text_mask.bool()[:, None, None, :]
        wanted = range(len(self.layers))[layer]
        for index, block in enumerate(self.blocks()[: wanted + 1]):
            text, seen = block.attend_to_text(text, keep), vision.rows(index, view)
            if index == wanted:
                return block.cross_attention.probabilities(text, seen.keys, seen.mask)
            text = block.feed_forward(block.attend_to_vision(text, seen))
        raise AssertionError("unreachable: the wanted layer is in range")


def _view_masks(tokens: Tensor, regions: RegionViews) -> Tensor:
    """[V, P]: whole images are seen whole, regions by their patches and their global token."""
    whole = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    return torch.cat([whole, F.pad(regions.patch_mask, (1, 0), value=True)])


def _initialize(module: nn.Module) -> None:
    """BERT's initial weights: normal with standard deviation 0.02, zero biases."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
