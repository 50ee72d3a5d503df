"""Another text encoder in a trained model: vision, fusion, projections and heads stay (X2-VLM's modularity, arXiv 2211.12402, section 3.1;
official `replace_text_encoder`). Of the masked-LM head the transform stays; bias and output matrix belong to the old vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from common.errors import UserError
from models.checkpoints.cclm import without_text_encoder
from models.checkpoints.coverage import Coverage
from models.checkpoints.load import Fit, fit_named, name_tensors, report
from models.checkpoints.reading import Contents, read_checkpoint, read_shapes
from models.initial_weights import load_text_encoder
from models.vlm import VisionLanguageModel

OF_THE_VOCABULARY = ("text.*", "mlm_head.bias", "mlm_head.decoder")
"""What a model gets anew."""
REASON = "the text encoder is replaced"


def swap_text_encoder(model: VisionLanguageModel, path: Path | str, allow_missing: Sequence[str] = ()) -> frozenset[str]:
    """Fill a model from a weights file, all but its text encoder, which starts from `model.text.weights`, or from nothing without them.

    Args:
        model: freshly built, with the new text encoder; changed in place.
        path: of the file with the old one; see `load_checkpoint`.
        allow_missing: fnmatch patterns of tensors that may stay as initialised.

    Returns:
        Names of the parameters that start from nothing.

    Raises:
        UserError: the file does not fit, as where the new encoder has another width than the fusion encoder; or the text weights do not.
    """
    fitted = _fit(read_checkpoint(Path(path)), model, str(path), allow_missing)
    model.load_state_dict(fitted.tensors, strict=False)
    report(fitted.coverage)
    filled = load_text_encoder(model, allow_missing) if model.config.text.weights else frozenset()
    return frozenset(fitted.coverage.new) - filled


def check_swap(model: VisionLanguageModel, path: Path | str, allow_missing: Sequence[str] = ()) -> Coverage:
    """What `swap_text_encoder` would take from the file, told without reading values; the model may be on the meta device."""
    return _fit(read_shapes(Path(path)), model, str(path), allow_missing).coverage


def _fit(contents: Contents, model: nn.Module, source: str, allow_missing: Sequence[str]) -> Fit:
    named = name_tensors(contents, source, known=model.state_dict())
    conversion = named.conversion
    kept = without_text_encoder(conversion.tensors)
    if not kept:
        raise UserError(f"{named.source}: it has nothing beside a text encoder, so there is nothing to keep of it.")
    left = {conversion.sources[name]: REASON for name in conversion.tensors.keys() - kept.keys()}
    sources = {name: conversion.sources[name] for name in kept}
    conversion = replace(conversion, tensors=kept, sources=sources, ignored={**conversion.ignored, **left})
    fitted = fit_named(replace(named, conversion=conversion), model, [*allow_missing, *OF_THE_VOCABULARY])
    notes = tuple(note for note in fitted.coverage.notes if not note.startswith("model.text."))  # that of the old encoder is another
    return replace(fitted, coverage=replace(fitted.coverage, notes=notes))
