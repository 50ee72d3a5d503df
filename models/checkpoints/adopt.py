"""Models of tasks whose parts start from parts of another name: a layer of the file that serves as two, or as a decoder's."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from models.checkpoints.keys import Conversion


@runtime_checkable
class Adopting(Protocol):
    """A model that says which tensors of a file its own start from."""

    def adopt(self, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        """The model's names to names in the file, both ours, whether the model has the tensor or not. What of the file is not named
        is left aside. Tensors may be on the meta device.

        Raises:
            UserError: the file cannot be taken.
        """
        ...


def adopted(conversion: Conversion, model: nn.Module) -> Conversion:
    """A file's tensors under the names of the parts that start from them; unchanged for models that start from the same names."""
    if not isinstance(model, Adopting):
        return conversion
    origins = model.adopt(conversion.tensors)
    left = {conversion.sources[name]: "the model shares it with another part" for name in conversion.tensors.keys() - set(origins.values())}
    return replace(
        conversion,
        tensors={name: conversion.tensors[origin] for name, origin in origins.items()},
        sources={name: conversion.sources[origin] for name, origin in origins.items()},
        ignored={**conversion.ignored, **left},
    )
