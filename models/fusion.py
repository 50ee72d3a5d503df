"""The cross-modal encoder: text states attend to an image, or to a region of it.

Shapes: B images, R regions, V = B + R views (see models/context.py), M text rows, P = 1+N visual tokens, L text tokens, T tokens of all
rows together, D vision width, H text width.

Inside, the tokens of all rows are one list [T, H], without padding where it is known which positions are tokens. Rows are laid out only
for attention. Passes over the same views attend as one: their queries stand side by side, and keys and values are fetched once.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.attention import Attention
from models.config import FusionConfig, TextConfig
from models.context import LayerView, Project, Seen, SharedContext, UnsharedContext, VisionContext, view_masks
from models.packing import Packing, Rows
from models.vision.regions import RegionViews


class FusionPass(NamedTuple):
    """Text rows that want to be fused: states [M, L, H], mask [M, L], and the view [M] each row attends to.

    A mask [M, L, L] is True where a token (row) may attend to another one (column); then all passes have such masks."""

    text: Tensor
    mask: Tensor
    view: Tensor | None
    """None: row i attends to view i, of a context without regions."""
    pooled: bool = False
    """Whether position 0 alone is read, as matching and box heads do; the rest is then not computed."""
    whole: bool = False
    """Whether all these views are whole images, whose keys are fetched faster than those of regions."""
    packing: Packing | None = None
    """Which positions are tokens; None: all are computed."""


class Group(NamedTuple):
    """Passes over the same views, which follow one another."""

    passes: int
    rows: int
    """Of each pass."""
    view: Tensor | None
    """[rows], see `FusionPass`."""
    whole: bool


class Layout(NamedTuple):
    """How the tokens of some passes are laid out for attention."""

    rows: Rows
    """Of all passes, one after the other."""
    mask: Tensor
    """[M, 1, 1, L] True for tokens; [M, 1, L, L] where tokens attend to some alone."""
    groups: tuple[Group, ...]

    def by_view(self, padded: Tensor) -> list[Tensor]:
        """Rows [M, L, ..] of all passes, for each group as one row a view: [rows, passes * L, ..]."""
        parts = padded.split([group.passes * group.rows for group in self.groups])
        return [
            part.unflatten(0, (group.passes, group.rows)).transpose(0, 1).flatten(1, 2) if group.passes > 1 else part
            for group, part in zip(self.groups, parts, strict=True)
        ]

    def by_pass(self, parts: list[Tensor]) -> Tensor:
        """The inverse of `by_view`."""
        rows = [
            part.unflatten(1, (group.passes, -1)).transpose(0, 1).flatten(0, 1) if group.passes > 1 else part
            for group, part in zip(self.groups, parts, strict=True)
        ]
        return torch.cat(rows) if len(rows) > 1 else rows[0]


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

    def forward(self, states: Tensor, layout: Layout, vision: LayerView | None, pooled: bool = False) -> Tensor:
        """The whole layer.

        Args:
            states: [T, H] tokens of all rows.
            layout: how they are laid out.
            vision: what this layer sees; None skips cross-attention.
            pooled: compute position 0 of each row alone; it still attends to all text.

        Returns:
            [T, H]; [M, H] when pooled.
        """
        states = self.attend_to_text(states, layout, pooled)
        if pooled:
            layout = layout._replace(rows=Rows(layout.rows.number, 1))
        if vision is not None:
            states = self.attend_to_vision(states, layout, vision)
        return self.feed_forward(states)

    def attend_to_text(self, states: Tensor, layout: Layout, pooled: bool = False) -> Tensor:
        """Self-attention sub-layer, [T, H] -> [T, H], or [M, H] when pooled."""
        attention, rows = self.self_attention, layout.rows
        keys, values = (attention.split(rows.padded(part(states))) for part in (attention.key, attention.value))
        if pooled:
            states, rows = rows.padded(states)[:, 0], Rows(rows.number, 1)
        mixed = attention.mix(rows.padded(attention.query(states)), keys, values, layout.mask)
        return self.self_attention_norm(states + self.dropout(attention.output(rows.flat(mixed))))

    def attend_to_vision(self, states: Tensor, layout: Layout, vision: LayerView) -> Tensor:
        """Cross-attention sub-layer, [T, H] -> [T, H]."""
        attention, rows = self.cross_attention, layout.rows
        queries = layout.by_view(rows.padded(attention.query(states)))
        # fetched here, so that a layer that is recomputed in the backward pass does not keep them
        seen = [vision.rows(group.view, group.whole) for group in layout.groups]
        mixed = layout.by_pass([attention.mix(query, *what) for query, what in zip(queries, seen, strict=True)])
        return self.cross_attention_norm(states + self.dropout(attention.output(rows.flat(mixed))))

    def read(self, states: Tensor, seen: Tensor | None, memory: Seen, past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """The whole layer, of texts that are read on from where they were left.

        Args:
            states: [M, L, H], the K texts of each question one after another.
            seen: [M, 1, L, L] or broadcastable, True where a token attends to another one; None for all of them.
            memory: of the questions or images, of which there are M / K. The K texts of one attend to it as if they were one text, so that
                its keys and values serve all of them and are never copied.
            past: keys and values [M, h, .., d] of the tokens that were read before.

        Returns:
            [M, L, H], and keys and values [M, h, .., d] of all tokens so far.
        """
        own, cross = self.self_attention, self.cross_attention
        keys, values = own.project(states)
        if past is not None:
            keys, values = torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2)
        states = self.self_attention_norm(states + self.dropout(own.output(own.mix(own.query(states), keys, values, seen))))
        together = states.reshape(len(memory.keys), -1, states.shape[2])  # [B, K*L, H]
        mixed = cross.output(cross.mix(cross.query(together), *memory))
        states = self.cross_attention_norm(states + self.dropout(mixed.reshape(states.shape)))
        return self.feed_forward(states), keys, values

    def feed_forward(self, states: Tensor) -> Tensor:
        """MLP sub-layer, [T, H] -> [T, H]."""
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

    def context(self, tokens: Tensor, regions: RegionViews | None = None, mask: Tensor | None = None, shared: bool = True) -> VisionContext:
        """Project keys and values of all layers, once.

        Args:
            tokens: [B, P, D] of whole images, or states of texts that other texts attend to.
            regions: views that follow the B whole images.
            mask: [B, P] True where tokens may be attended to; None for all. Only without regions.
            shared: False projects them anew in each pass.

        Returns:
            The context of V = B (+ R) views.
        """
        if regions is not None and regions.patches is not None:
            own = torch.cat([regions.tokens[:, None], regions.patches], dim=1)
            return self.context(torch.cat([tokens, own]), mask=view_masks(tokens, regions), shared=shared)
        if shared:
            return SharedContext.of([layer.project for layer in self.blocks()], tokens, regions, mask)
        # called within the layer's forward: its own `project` would there, under FSDP, take the layer's weights away when it is done
        within: list[Project] = [layer.cross_attention.project for layer in self.blocks()]
        return UnsharedContext.of(within, tokens, regions, mask)

    def forward(self, passes: Sequence[FusionPass], vision: VisionContext | None) -> list[Tensor]:
        """Fuse text rows with the views that they attend to, all passes as one batch.

        Matching and box heads read position 0 alone, so the last layer computes no other position of the rows that are for them.

        Args:
            passes: all with the same padded length L.
            vision: keys and values; None skips cross-attention (text-only language modelling).

        Returns:
            States of each pass: [M, L, H], zero where no token is computed, or [M, 1, H] where it is pooled.
        """
        groups = _group(passes, vision is not None and vision.groups)
        order = [number for group in groups for number in group]
        layout, sizes = _lay_out(passes, groups)
        states = _tokens([passes[number] for number in order])
        *most, last = self.blocks()
        for index, layer in enumerate(most):
            states = layer(states, layout, None if vision is None else vision.layer(index))
        parts = dict(zip(order, states.split(sizes), strict=True))
        found: dict[int, Tensor] = {}
        for pooled in (True, False):
            chosen = [[number for number in group if passes[number].pooled == pooled] for group in groups]
            chosen = [group for group in chosen if group]
            if chosen:
                found |= self._last(last, passes, chosen, parts, vision, pooled)
        return [found[number] for number in range(len(passes))]

    def _last(
        self,
        layer: nn.Module,
        passes: Sequence[FusionPass],
        groups: list[list[int]],
        parts: dict[int, Tensor],
        vision: VisionContext | None,
        pooled: bool,
    ) -> dict[int, Tensor]:
        """The last layer of the passes that read all positions, or of those that read position 0 alone."""
        order = [number for group in groups for number in group]
        layout, _ = _lay_out(passes, groups)
        states = torch.cat([parts[number] for number in order]) if len(order) > 1 else parts[order[0]]
        states = layer(states, layout, None if vision is None else vision.layer(len(self.layers) - 1), pooled=pooled)
        rows = states[:, None] if pooled else layout.rows.padded(states)  # [M, 1 or L, H]
        return dict(zip(order, rows.split([len(passes[number].mask) for number in order]), strict=True))


def _group(passes: Sequence[FusionPass], share: bool) -> list[list[int]]:
    """Numbers of the passes that attend to the very same views, together; the order of the groups is that of the passes."""
    groups: list[list[int]] = []
    for number, item in enumerate(passes):
        same = next((group for group in groups if share and passes[group[0]].view is item.view), None)
        if same is None:
            groups.append([number])
        else:
            same.append(number)
    return groups


def _lay_out(passes: Sequence[FusionPass], groups: list[list[int]]) -> tuple[Layout, list[int]]:
    """The layout of passes in the order of their groups, and how many tokens each of them has."""
    items = [passes[number] for group in groups for number in group]
    mask = torch.cat([item.mask for item in items]) if len(items) > 1 else items[0].mask
    count, length = mask.shape[:2]
    sizes, start = [], 0
    places: list[Tensor] | None = [] if any(item.packing is not None for item in items) else None
    for item in items:
        rows = len(item.mask)
        if places is not None:
            every = torch.arange(start * length, (start + rows) * length, device=mask.device)
            places.append(every if item.packing is None else item.packing.places(start, count))
        sizes.append(rows * length if places is None else len(places[-1]))
        start += rows
    shapes = tuple(Group(len(group), len(first.mask), first.view, first.whole) for group in groups for first in [passes[group[0]]])
    rows = Rows(count, length, None if places is None else torch.cat(places))
    return Layout(rows, mask.bool()[:, None, :] if mask.dim() == 3 else mask.bool()[:, None, None, :], shapes), sizes


def _tokens(items: list[FusionPass]) -> Tensor:
    """[T, H] the tokens of some passes."""
    flat = [_rows(item).flat(item.text) for item in items]
    return torch.cat(flat) if len(flat) > 1 else flat[0]


def _rows(item: FusionPass) -> Rows:
    number, length = item.mask.shape[:2]
    return Rows(number, length, None if item.packing is None else item.packing.places(0, number))


def _initialize(module: nn.Module) -> None:
    """BERT's initial weights: normal with standard deviation 0.02, zero biases."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
