"""Which setting was meant: the settings that a schema offers, and the nearest one to a key that it does not know."""

import types
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from engine.config.document import KeyPath, dotted

ALIASES: dict[str, tuple[str, ...]] = {
    "learning_rate": ("optimizer.lr",),
    "init_lr": ("optimizer.lr",),
    "wd": ("optimizer.weight_decay",),
    "grad_clip": ("optimizer.clip_norm",),
    "max_grad_norm": ("optimizer.clip_norm",),
    "fusion_lr": ("optimizer.cross_lr",),
    "schedular": ("schedule",),
    "scheduler": ("schedule",),
    "sched": ("schedule.kind",),
    "num_warmup_steps": ("schedule.warmup_steps",),
    "warmup": ("schedule.warmup_steps",),
    "num_training_steps": ("schedule.steps",),
    "max_steps": ("schedule.steps",),
    "epoch": ("schedule.epochs",),
    "num_epochs": ("schedule.epochs",),
    "image_res": ("model.vision.image_size",),
    "embed_dim": ("model.projection_dim",),
    "temp": ("model.temperature",),
    "frame_len": ("model.vision.frames",),
    "vision_num_hidden_layers": ("model.vision.depth",),
    "text_encoder": ("model.text.weights",),
    "text_num_hidden_layers": ("model.text.layers",),
    "cross_num_hidden_layers": ("model.fusion.layers",),
    "mask_prob": ("masking.probability",),
    "mask_whole_word": ("masking.whole_word",),
    "skipgram_prb": ("masking.skipgram_probability",),
    "max_length": ("tokenizer.max_tokens",),
    "careful_hflip": ("augmentation.careful_flip",),
    "hflip": ("augmentation.flip",),
    "train_file": ("data.train", "shards"),
    "train_dataset": ("streams",),
    "val_file": ("data.validation",),
    "valid_file": ("data.validation",),
    "test_file": ("data.test",),
    "img_rdir": ("image_root",),
    "batch_size_train": ("data.batch_size", "batch_size"),
    "bs": ("data.batch_size", "batch_size"),
    "batch_size_test": ("evaluation.batch_size", "evaluation.retrieval.batch_size"),
    "batch_size_test_text": ("evaluation.text_batch_size", "evaluation.retrieval.text_batch_size"),
    "k_test": ("evaluation.top_k", "evaluation.retrieval.top_k"),
    "accumulate_steps": ("engine.accumulation",),
    "num_workers": ("engine.workers",),
    "ckpt_frequent_step": ("engine.checkpoint_every",),
    "save_every": ("engine.checkpoint_every",),
    "print_freq": ("engine.log_every",),
    "fp16": ("engine.precision",),
    "amp": ("engine.precision",),
    "checkpoint": ("initialize.checkpoint",),
}
"""Names that the published code and other projects use, and the settings here that stand for them (the end of their path)."""


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """The sentence " Did you mean X?" for the nearest known word, or an empty text."""
    near = get_close_matches(word, list(known), n=1)
    return f" Did you mean {prefix}{near[0]}?" if near else ""


def children(annotation: Any, value: Any) -> dict[str, Any]:
    """The settings directly below one, with their types.

    Args:
        annotation: type of the setting: a settings class, a mapping, or a choice among such.
        value: what was written for it; picks among classes that differ in a literal field such as `kind`.
    """
    found: dict[str, Any] = {}
    for kind in _members(annotation):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if _fits(kind, value):
                found |= {name: field.annotation for name, field in kind.model_fields.items()}
        elif get_origin(kind) is dict:
            found |= dict.fromkeys(value if isinstance(value, dict) else (), get_args(kind)[1])
    return found


def setting_paths(annotation: Any, value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Paths of all settings below one, given what was written for it."""
    for name, kind in children(annotation, value).items():
        below = value.get(name) if isinstance(value, dict) else None
        yield (*path, name)
        yield from setting_paths(kind, below, (*path, name))


def nearest_setting(schema: type[BaseModel], values: dict[str, Any], path: KeyPath) -> KeyPath | None:
    """The setting most likely meant by an unknown key: by its other names, then beside it, then elsewhere."""
    word, parent = str(path[-1]), path[:-1]
    known = list(setting_paths(schema, values))
    # a mapping of free names (streams) lists the unknown key's own subtree too, which is no suggestion
    known = [item for item in known if item[: len(path)] != path]
    for alias in ALIASES.get(word, ()):
        fitting = [item for item in known if f".{dotted(item)}".endswith(f".{alias}")]
        if fitting:
            return max(fitting, key=lambda item: (_shared(item, parent), -len(item)))
    beside = {str(item[-1]): item for item in known if item[:-1] == parent}
    near = get_close_matches(word, list(beside), n=1)
    if near:
        return beside[near[0]]
    elsewhere = sorted(known, key=lambda item: (-_shared(item, parent), len(item)))
    near = get_close_matches(word, [str(item[-1]) for item in elsewhere], n=1, cutoff=0.75)
    return next(item for item in elsewhere if item[-1] == near[0]) if near else None


def siblings(schema: type[BaseModel], values: dict[str, Any], parent: KeyPath) -> list[str]:
    """Names of the settings directly below a path."""
    annotation, value = _descend(schema, values, parent)
    return list(children(annotation, value))


def choices(schema: type[BaseModel], values: dict[str, Any], path: KeyPath, tag: str) -> list[str]:
    """Values of the literal field `tag` by which the settings classes possible at a path differ."""
    members = [kind for kind in _members(_descend(schema, values, path)[0]) if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return [str(value) for kind in members for value in get_args(kind.model_fields[tag].annotation)]


def _descend(schema: type[BaseModel], values: dict[str, Any], path: KeyPath) -> tuple[Any, Any]:
    """Type and written value at a path; None where the schema has nothing there."""
    annotation: Any = schema
    value: Any = values
    for part in path:
        annotation = children(annotation, value).get(str(part))
        value = value.get(part) if isinstance(value, dict) else None
    return annotation, value


def _shared(one: KeyPath, other: KeyPath) -> int:
    return next((index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _members(annotation: Any) -> list[Any]:
    """The types that an annotation may stand for, without None."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [member for part in get_args(annotation) for member in _members(part)]
    return [annotation]


def _fits(kind: type[BaseModel], value: Any) -> bool:
    """False where the value names another choice in a literal field."""
    if not isinstance(value, dict):
        return True
    literals = {name: get_args(field.annotation) for name, field in kind.model_fields.items() if get_origin(field.annotation) is Literal}
    return all(value.get(name) is None or value[name] in allowed for name, allowed in literals.items() if len(allowed) == 1)
