"""Recorded gradient norms beside ours, under official names."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from torch import nn

from parity.compare import Finding, Tolerance, compare_number, in_one_row

RELATIVE = 1e-4
"""What a norm may differ by."""
NEGLIGIBLE = {"float32": 1e-5, "float64": 1e-9}
"""Share of the whole gradient's norm that rounding leaves where terms cancel, as for the temperature and the bias of attention keys. The
official code's own float32 norms are up to 1.3e-6 of the whole away from its float64 norms; the matrix kernels of another processor add
as much as 6e-6 again. A wrong formula shows in float64."""


def gradient_norms(named: Mapping[str, nn.Parameter], sources: Mapping[str, str]) -> dict[str, float]:
    """Norm of each parameter's gradient by its official name; parameters without a gradient are left out. Shared ones count once."""
    gradients = {sources[name]: parameter.grad for name, parameter in named.items() if name in sources}
    return {name: float(gradient.double().norm()) for name, gradient in gradients.items() if gradient is not None}


def compare_gradients(scenario: str, dtype: str, recorded: Mapping[str, Any], norms: Mapping[str, float]) -> list[Finding]:
    """Compare the gradients of one scenario.

    Args:
        scenario, dtype: what they are of.
        recorded: module_norm; where recorded also param_norm and no_grad_params.
        norms: ours, see `gradient_norms`.

    Returns:
        One finding for each module and each parameter, those that should have no gradient included.
    """
    whole = recorded["module_norm"]["__all__"]
    modules: dict[str, float] = defaultdict(float)
    for name, norm in norms.items():
        modules[name.split(".", 1)[0]] += norm**2
    modules["__all__"] = sum(modules.values())
    of_modules = [
        _compare(scenario, f"gradient of {name}", dtype, norm, modules[name] ** 0.5 if name in modules else None, whole)
        for name, norm in recorded["module_norm"].items()
    ]
    expected = dict.fromkeys(recorded.get("no_grad_params", []), 0.0) | recorded.get("param_norm", {})
    of_parameters = [_compare(scenario, f"gradient of {name}", dtype, norm, norms.get(name), whole) for name, norm in expected.items()]
    return in_one_row("gradients of modules", of_modules) + in_one_row("gradients of parameters", of_parameters)


def _compare(scenario: str, name: str, dtype: str, recorded: float, ours: float | None, whole: float) -> Finding:
    rounding = NEGLIGIBLE[dtype] * whole
    if ours is None and recorded <= rounding:
        ours = 0.0  # no gradient at all is as good as one of rounding errors
    return compare_number(scenario, name, dtype, recorded, ours, Tolerance(rounding, RELATIVE))
