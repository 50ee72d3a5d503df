"""A recorded case: what went into a model of the official code and what came out of it."""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from common.errors import UserError

Tensors = dict[str, Tensor]
DTYPES = {"float32": "outputs.safetensors", "float64": "outputs_f64.safetensors"}


@dataclass(frozen=True)
class Case:
    """One folder of recorded tensors; see docs/parity.md for its files."""

    folder: Path
    repo: str
    """Official repository, "X2-VLM"."""
    official_class: str
    """Module and class within it, "models.model_pretrain.XVLM"."""
    base: dict[str, Any]
    """The official config."""
    dims: dict[str, Any]
    """Sizes of the encoders as the official code read them."""
    weights: Tensors
    inputs: dict[str, dict[str, Any]]
    """Scenario to arguments: tensors, and whatever else was given."""
    outputs: dict[str, dict[str, Tensors]]
    """"float32" and "float64" to scenario to recorded name."""
    gradients: dict[str, Any]
    """Scenario to "f64" (or "f32") to module_norm, param_norm, no_grad_params."""
    tied: dict[str, str]
    """Names that share another's storage."""
    recorded: dict[str, Any]
    """All of config.json."""


def read_case(folder: Path) -> Case:
    """Read a case.

    Raises:
        UserError: the folder is not one.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise UserError(f"{folder}: not a recorded case, it has no config.json")
    recorded = json.loads(file.read_text())
    flat: dict[str, Any] = _tensors(folder / "inputs.safetensors")
    flat |= {alias: flat[name] for alias, name in recorded.get("input_aliases", {}).items()}
    inputs = _by_scenario(flat)
    for scenario, entry in recorded.get("scenarios", {}).items():
        inputs[scenario] = {**entry["inputs"], **inputs.get(scenario, {})}  # what is no tensor is kept in config.json
    gradients = folder / "grads.json"
    config = recorded.get("config", {})
    return Case(
        folder,
        recorded.get("repo", ""),
        recorded.get("official_class", ""),
        config.get("base", {}),
        config.get("dims", {key: value for key, value in config.items() if key != "base"}),
        _tensors(folder / "weights.safetensors"),
        inputs,
        {dtype: _by_scenario(_tensors(folder / name)) for dtype, name in DTYPES.items()},
        json.loads(gradients.read_text()) if gradients.is_file() else {},
        recorded.get("tied_parameters", {}),
        recorded,
    )


def _tensors(file: Path) -> Tensors:
    return load_file(file) if file.is_file() else {}


def _by_scenario(flat: dict[str, Any]) -> dict[str, dict[str, Any]]:
    nested: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, value in flat.items():
        scenario, key = name.split("/", 1)
        nested[scenario][key] = value
    return dict(nested)
