"""The model that a weights file holds, built from the file alone."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

from pydantic import ValidationError
from ruamel.yaml import YAML
from torch import Tensor

from common.errors import UserError
from common.settings import Settings
from models.answering import AnsweringModel
from models.checkpoints.adapter import HeadCounts
from models.checkpoints.load import fit_named, name_tensors, one_line, report
from models.checkpoints.reading import read_checkpoint
from models.config import ModelConfig
from models.mvp.config import MvpConfig
from models.mvp.model import Mvp, MvpHead
from models.vlm import ALL_HEADS, Head, VisionLanguageModel

Model = VisionLanguageModel | Mvp
HEAD_SIGNS: dict[Head, str] = {
    "itc": "vision_proj.",
    "itm": "itm_head.",
    "mlm": "mlm_head.dense.",
    "box": "box_head.",
    "text_mlm": "text_mlm_head.dense.",
    "mim": "vision.backbone.mask_token",
}
"""What tells that a file holds what a head needs, by our names."""
MVP_SIGNS: dict[MvpHead, str] = {
    "itc": "text_proj.",
    "itm": "itm_head.",
    "mlm": "mlm_head.dense.",
    "concepts": "concept_head.dense.",
    "qa": "qa_head.",
    "vqa": "vqa_head.",
}


def load_pretrained(
    path: Path | str,
    heads: Iterable[str] | None = None,
    counts: HeadCounts | None = None,
    image_size: int | None = None,
    allow_missing: Sequence[str] = (),
) -> Model:
    """Build the model that a file holds and fill it: `load_pretrained("x2vlm_base_1b.th")`.

    Args:
        path: a file of any known format; of weights in several files their index, or the folder. Sizes and resolution are read from its
            shapes; of our own files, from the config that lies beside them or in the folder of their run.
        heads: which heads to build, such as ("itc", "itm"); None: all that the file holds.
        counts: numbers of attention heads where no shape tells them and they are not the published 64 channels each.
        image_size: another resolution in pixels; position tables are resized.
        allow_missing: fnmatch patterns of tensors that may stay as initialised.

    Returns:
        The model in evaluation mode.

    Raises:
        UserError: the file cannot be read, is of no known format, or lacks what the heads need.
    """
    contents = read_checkpoint(Path(path))
    named = name_tensors(contents, str(path), counts)
    config = named.config or own_config(Path(path), contents.metadata)
    if image_size is not None:
        config = _at_size(config, image_size)
    model = build(config, heads, named.conversion.tensors)
    fitted = fit_named(named, model, allow_missing)
    model.load_state_dict(fitted.tensors, strict=False)
    report(fitted.coverage)
    return model.eval()


def build(config: Settings, heads: Iterable[str] | None, available: Mapping[str, Tensor]) -> Model:
    """A new model of a configuration.

    Args:
        config: ModelConfig or MvpConfig.
        heads: names of heads; None: those whose tensors are available.
        available: tensors by our names.

    Raises:
        UserError: a head is unknown.
    """
    signs = cast(dict[str, str], MVP_SIGNS if isinstance(config, MvpConfig) else HEAD_SIGNS)
    known = tuple(MVP_SIGNS) if isinstance(config, MvpConfig) else ALL_HEADS
    wanted = list(heads) if heads is not None else [head for head in known if any(name.startswith(signs[head]) for name in available)]
    unknown = [head for head in wanted if head not in known]
    if unknown:
        raise UserError(f"heads: {unknown[0]} is not a head of this model; they are {', '.join(known)}.")
    if isinstance(config, MvpConfig):
        return Mvp(config, cast(list[MvpHead], wanted))
    assert isinstance(config, ModelConfig), "the other kind of configuration"
    if heads is None and any(name.startswith("decoder.") for name in available):
        return AnsweringModel(config)
    return VisionLanguageModel(config, cast(list[Head], wanted))


def own_config(path: Path, metadata: Mapping[str, str]) -> Settings:
    """The configuration of one of our own files: in its header if it was converted, else in the config of its run.

    Raises:
        UserError: neither is there.
    """
    if "config" in metadata:
        kind = MvpConfig if metadata.get("family") == "mvp" else ModelConfig
        return kind.model_validate(json.loads(metadata["config"]))
    inside = path / "weights" if path.is_dir() else path
    for folder in list(inside.resolve().parents)[:3]:
        file = folder / "config.yaml"
        if file.is_file():
            settings = YAML(typ="safe").load(file.read_text(encoding="utf-8"))
            if isinstance(settings, dict) and "model" in settings:
                try:
                    return ModelConfig.model_validate(settings["model"])
                except ValidationError as error:
                    raise UserError(f"{file}: model: {one_line(error)}") from error
    raise UserError(f"{path}: a file of this project without the config of its run (config.yaml beside it or up to two folders above).")


def _at_size(config: Settings, image_size: int) -> Settings:
    if not isinstance(config, ModelConfig):
        raise UserError("image_size: this model works on regions of a detector, not on pixels.")
    vision = {**config.vision.model_dump(), "image_size": image_size}
    try:
        return ModelConfig.model_validate({**config.model_dump(), "vision": vision})
    except ValidationError as error:
        raise UserError(f"image_size {image_size}: {one_line(error)}") from error
