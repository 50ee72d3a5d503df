"""Parameters of no dimension, such as the temperature: sharded strategies know none, so inside of them these are vectors of one."""

from torch import Tensor, nn
from torch.optim import Optimizer


def lengthen_scalars(model: nn.Module, optimizer: Optimizer) -> frozenset[str]:
    """Make parameters of no dimension vectors of one, in the model and in the optimizer's groups; returns their names."""
    found = [name for name, parameter in model.named_parameters() if parameter.dim() == 0]
    for name in found:
        owner, _, last = name.rpartition(".")
        scalar = model.get_parameter(name)
        vector = nn.Parameter(scalar.detach().reshape(1), requires_grad=scalar.requires_grad)
        setattr(model.get_submodule(owner), last, vector)
        for group in optimizer.param_groups:
            group["params"] = [vector if parameter is scalar else parameter for parameter in group["params"]]
    return frozenset(found)


def to_cpu(key: str, tensor: Tensor, scalars: frozenset[str]) -> Tensor:
    """A CPU copy of a full tensor of the model or, under "parameter name|state name", of the optimizer; scalars are scalars again."""
    whole = tensor.detach()
    if key.partition("|")[0] in scalars and whole.dim() == 1:
        whole = whole.reshape(())
    return whole.to("cpu", copy=True).contiguous()
