"""Settings in which the model of a file and the model at hand are not the same."""

from collections.abc import Container
from typing import Any

from common.settings import Settings
from models.config import ModelConfig

NO_SIZES = {
    "kind",
    "image_size",
    "window",
    "frames",
    "heads",
    "layer_norm_eps",
    "pad_token_id",
    "local_depth",
    "layer_scale",
    "tied_mlm",
    "learn_temperature",
}
"""Last parts of keys that no tensor's shape depends on, or that positions are resized for."""
COMPUTING = ("text.kind", "text.layer_norm_eps", "text.pad_token_id", "fusion.layer_norm_eps")
"""Settings that change what is computed although every shape fits."""


def size_differences(theirs: Settings | None, ours: Any, names: Container[str]) -> list[str]:
    """How the sizes of a file's model differ from those of the model at hand, as "model.text.layers: 12 (config: 6)".

    Args:
        theirs: told from the file's shapes; None where they do not tell.
        ours: of the model at hand.
        names: our names of the file's tensors.
    """
    if theirs is None or type(theirs) is not type(ours):
        return []
    if isinstance(theirs, ModelConfig) and isinstance(ours, ModelConfig) and theirs.vision.kind != ours.vision.kind:
        return [f"model.vision.kind: {theirs.vision.kind} (config: {ours.vision.kind})"]
    told, own = _flat(theirs.model_dump(exclude_unset=True)), _flat(ours.model_dump())
    if "text_proj.weight" not in names:
        told.pop("projection_dim", None)
    return [
        f"model.{key}: {value} (config: {own[key]})"
        for key, value in told.items()
        if key in own and key.rsplit(".", 1)[-1] not in NO_SIZES and value is not None and own[key] is not None and value != own[key]
    ]


def computing_differences(theirs: Settings | None, ours: Any) -> list[str]:
    """What the model at hand computes otherwise than the file's own, although all shapes may fit."""
    if not isinstance(theirs, ModelConfig) or not isinstance(ours, ModelConfig):
        return []
    told, own = _flat(theirs.model_dump()), _flat(ours.model_dump())
    for settings in (told, own):
        if settings["fusion.layer_norm_eps"] is None:
            settings["fusion.layer_norm_eps"] = settings["text.layer_norm_eps"]
    return [
        f"model.{key} is {own[key]} here; models of this format were trained with {told[key]}" for key in COMPUTING if told[key] != own[key]
    ]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
