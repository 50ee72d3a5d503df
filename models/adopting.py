"""Models of tasks whose parts start from parts of another name: a layer of a file that serves as two, or as a decoder's."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor, nn


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


def without_other_head(tensors: Mapping[str, Tensor], model: nn.Module, prefix: str = "cls_head.") -> dict[str, Tensor]:
    """A file's tensors without a head that was trained for other labels, told by its shapes; the model's own starts fresh."""
    own = model.state_dict()
    other = any(name in own and own[name].shape != tensor.shape for name, tensor in tensors.items() if name.startswith(prefix))
    return {name: tensor for name, tensor in tensors.items() if not (other and name.startswith(prefix))}
