"""What text rows attend to: keys and values of images, of regions, or of other texts, for every layer of the fusion encoder.

Shapes: B images, R regions, V = B + R views, M text rows, P = 1+N visual tokens, D vision width, h heads, d = H/h.

A *view* is what a text row may attend to. The first B views are the whole images; with regions, R more follow, each the patches of its
region with the region's own global token.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from models.vision.regions import RegionViews

Project = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Keys and values [.., h, P, d] that one layer sees of source states [.., P, D]."""


class Seen(NamedTuple):
    """What M text rows may attend to in one layer."""

    keys: Tensor
    """[M, h, P, d]"""
    values: Tensor
    """[M, h, P, d]"""
    mask: Tensor | None
    """[M, 1, 1, P] True where attending is allowed; None for everywhere."""


class LayerView(ABC):
    """All views as one layer sees them."""

    @abstractmethod
    def rows(self, view: Tensor | None, whole: bool = False) -> Seen:
        """What text rows that attend to `view` [M] see.

        Args:
            view: [M] numbers of views; None: row i attends to view i, and there are no regions.
            whole: all these views are whole images.
        """


class VisionContext(ABC):
    """Keys and values of all views for every fusion layer."""

    groups: bool = True
    """Whether passes over the same views share what they see."""

    @abstractmethod
    def layer(self, index: int) -> LayerView:
        """What one layer of the fusion encoder sees."""


@dataclass(frozen=True)
class SharedView(LayerView):
    """Keys and values were projected once for each image."""

    keys: Tensor
    """[B, h, P, d]; [V, h, P, d] where every view has tokens of its own."""
    values: Tensor
    region_keys: Tensor | None
    """[V, h, 1, d]: the keys of each view's global token; None unless regions share their image's patches."""
    region_values: Tensor | None
    image_index: Tensor | None
    """[V] the image of each view; None unless regions share their image's patches."""
    mask: Tensor | None
    """[V, P] True where a view may be attended to; None where all of it may."""

    def rows(self, view: Tensor | None, whole: bool = False) -> Seen:
        """See `LayerView`."""
        if view is None:
            return Seen(self.keys, self.values, _row_mask(self.mask, None))
        if self.region_keys is None or self.region_values is None or self.image_index is None:
            return Seen(_pick(self.keys, view), _pick(self.values, view), _row_mask(self.mask, view))
        if whole:
            return Seen(_pick(self.keys, view), _pick(self.values, view), None)
        image = self.image_index[view]
        return Seen(
            torch.cat([_pick(self.region_keys, view), _pick(self.keys[:, :, 1:], image)], dim=2),
            torch.cat([_pick(self.region_values, view), _pick(self.values[:, :, 1:], image)], dim=2),
            _row_mask(self.mask, view),
        )


@dataclass(frozen=True)
class SharedContext(VisionContext):
    """Projected once for each image, and shared by all passes over it: the true pair, hard negatives, masked language modelling, box
    prediction, and all its regions."""

    views: list[SharedView]
    """For each layer."""

    @classmethod
    def of(cls, layers: Sequence[Project], tokens: Tensor, regions: RegionViews | None, mask: Tensor | None) -> "SharedContext":
        """Project whole images [B, P, D] and their regions for all layers; see `Fusion.context`."""
        if regions is None:
            return cls([SharedView(*project(tokens), None, None, None, mask) for project in layers])
        image_index, visible = images_of_views(tokens, regions), view_masks(tokens, regions)
        views = []
        for project in layers:
            keys, values = project(tokens)
            region_keys, region_values = project(regions.tokens[:, None])  # [R, h, 1, d]
            region_keys, region_values = torch.cat([keys[:, :, :1], region_keys]), torch.cat([values[:, :, :1], region_values])
            views.append(SharedView(keys, values, region_keys, region_values, image_index, visible))
        return cls(views)

    def layer(self, index: int) -> LayerView:
        """See `VisionContext`."""
        return self.views[index]


@dataclass(frozen=True)
class UnsharedView(LayerView):
    """Keys and values are projected anew for every row of every pass, as published code does: what sharing is measured against."""

    project: Project
    tokens: Tensor
    """[B, P, D]; [V, P, D] where every view has tokens of its own."""
    region_tokens: Tensor | None
    """[V, D] the global token of each view; None unless regions share their image's patches."""
    image_index: Tensor | None
    """As in `SharedView`."""
    mask: Tensor | None
    """As in `SharedView`."""

    def rows(self, view: Tensor | None, whole: bool = False) -> Seen:
        """See `LayerView`."""
        source = self.tokens
        if view is not None:
            source = _pick(source, view if self.image_index is None else self.image_index[view])
            if self.region_tokens is not None:
                source = torch.cat([_pick(self.region_tokens, view)[:, None], source[:, 1:]], dim=1)
        return Seen(*self.project(source), _row_mask(self.mask, view))


@dataclass(frozen=True)
class UnsharedContext(VisionContext):
    """See `UnsharedView`."""

    views: list[UnsharedView]
    groups = False

    @classmethod
    def of(cls, layers: Sequence[Project], tokens: Tensor, regions: RegionViews | None, mask: Tensor | None) -> "UnsharedContext":
        """Keep what is to be projected; arguments as for `SharedContext.of`."""
        if regions is None:
            return cls([UnsharedView(project, tokens, None, None, mask) for project in layers])
        globals_, image_index = torch.cat([tokens[:, 0], regions.tokens]), images_of_views(tokens, regions)
        return cls([UnsharedView(project, tokens, globals_, image_index, view_masks(tokens, regions)) for project in layers])

    def layer(self, index: int) -> LayerView:
        """See `VisionContext`."""
        return self.views[index]


def images_of_views(tokens: Tensor, regions: RegionViews) -> Tensor:
    """[V] the image of each view."""
    return torch.cat([torch.arange(tokens.shape[0], device=tokens.device), regions.image_index])


def view_masks(tokens: Tensor, regions: RegionViews) -> Tensor:
    """[V, P]: whole images are seen whole, regions by their patches and their global token."""
    whole = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    return torch.cat([whole, F.pad(regions.patch_mask, (1, 0), value=True)])


def _pick(source: Tensor, index: Tensor) -> Tensor:
    """Rows of [B, ..] by number, [M, ..]; the only row there is, is not copied."""
    # index_select, whose gradient is one index_add; the gradient of source[index] sorts the indices, or adds row by row on a CPU
    return source.expand(len(index), *source.shape[1:]) if len(source) == 1 else source.index_select(0, index)


def _row_mask(mask: Tensor | None, view: Tensor | None) -> Tensor | None:
    """[M, 1, 1, P] of [V, P]."""
    return None if mask is None else (mask if view is None else mask[view])[:, None, None, :]
