"""What an official checkpoint format must tell: whether a file is of it, which model it holds, and its names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from common.settings import Settings
from models.checkpoints.keys import KeyTable

Shapes = Mapping[str, torch.Size]
Config = TypeVar("Config", bound=Settings)
"""ModelConfig, or MvpConfig."""


@dataclass(frozen=True)
class HeadCounts:
    """Numbers of attention heads where no tensor's shape tells them; None means the published 64 channels a head."""

    vision: int | None = None
    text: int | None = None
    fusion: int | None = None


class Adapter(Protocol[Config]):
    """One official format of models that are described by this kind of configuration."""

    name: str
    """As the command line and reports call it."""

    def recognises(self, shapes: Shapes) -> bool:
        """Whether a file with these tensors is of this format; told from names and shapes alone."""
        ...

    def config(self, shapes: Shapes, heads: HeadCounts) -> Config:
        """The model that a file with these tensors holds."""
        ...

    def table(self, config: Config) -> KeyTable:
        """Names of the tensors of such a model."""
        ...

    def buffers(self, config: Config) -> dict[str, Tensor]:
        """What official files hold beside weights (position ids, relative position indices), under official names, for writing them."""
        ...
