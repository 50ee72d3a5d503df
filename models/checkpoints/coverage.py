"""What loading a file does to a model, told from names and shapes before anything is changed."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import prod

import torch

from common.errors import UserError

Shape = torch.Size | tuple[int, ...]


@dataclass(frozen=True)
class Found:
    """A tensor of a file under the name it has in our models."""

    source: str
    """Its name in the file."""
    shape: torch.Size
    """As the model would get it: after transposing and resizing."""
    transposed: bool = False
    resized_from: torch.Size | None = None
    """Its shape in the file, where that is another resolution's."""


@dataclass(frozen=True)
class Coverage:
    """What a load did, by names."""

    source: str
    """The file, and its format."""
    loaded: Mapping[str, Found]
    """Filled tensors of the model, by our names."""
    new: tuple[str, ...]
    """Needed by the model, absent from the file, kept as initialised."""
    ignored: Mapping[str, str]
    """Names in the file that fill nothing, and why."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Numbers in each tensor of the model."""
    notes: tuple[str, ...] = ()
    """What the model computes otherwise than the file's own does, although all shapes fit."""

    @property
    def converted(self) -> dict[str, str]:
        """Filled tensors that are not as the file has them, and what was done."""
        return {name: what for name, found in self.loaded.items() if (what := _change(name, found))}

    def lines(self) -> list[str]:
        """The report: a headline, then a line for each module, for what is new and for what is ignored."""
        total, filled = sum(self.sizes.values()), self._size(self.loaded)
        lines = [f"{self.source}: {len(self.loaded)} tensors loaded, {_millions(filled)} of {_millions(total)} parameters"]
        for module, names in _by_module(self.loaded).items():
            changes = Counter(change for name in names for change in _change(name, self.loaded[name]).split(" and ") if change)
            told = "".join(f", {count} {change}" for change, count in changes.items())
            lines.append(f"  {module}: {len(names)} loaded ({_millions(self._size(names))}){told}")
        for module, names in _by_module(self.new).items():
            lines.append(f"  {module}: {len(names)} newly initialised ({_millions(self._size(names))}), not in the file")
        reasons = Counter((name.split(".", 1)[0], _kind(why)) for name, why in self.ignored.items())
        for (module, why), count in sorted(reasons.items()):
            lines.append(f"  {module} of the file: {count} ignored, {why}")
        return lines + [f"  note: {note}" for note in self.notes]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _size(self, names: Iterable[str]) -> int:
        return sum(self.sizes.get(name, 0) for name in names)


def compare(
    source: str,
    own: Mapping[str, Shape],
    found: Mapping[str, Found],
    ignored: Mapping[str, str],
    allow_missing: Sequence[str],
    differences: Sequence[str] = (),
) -> Coverage:
    """Compare what a file gives with what a model needs.

    Args:
        source: the file, for messages.
        own: shapes of the model's tensors by our names.
        found: the file's tensors by our names.
        ignored: the file's tensors that no model here has a place for, and why.
        allow_missing: fnmatch patterns of tensors that may stay as initialised.
        differences: settings in which the file's model is another than this one, for messages.

    Raises:
        UserError: a tensor has another shape, the file's model is deeper, or it lacks tensors that no pattern allows.
    """
    both = {name: found[name] for name in sorted(own.keys() & found.keys())}
    _check_shapes(source, own, both, differences)
    _check_depth(source, own, found, differences)
    missing = sorted(own.keys() - found.keys())
    _check_missing(source, missing, nothing=not both, allow_missing=allow_missing, differences=differences)
    elsewhere = {item.source: "this model has no such part" for name, item in found.items() if name not in own}
    sizes = {name: prod(shape) for name, shape in own.items()}
    return Coverage(source, both, tuple(missing), {**ignored, **elsewhere}, sizes)


def _check_shapes(source: str, own: Mapping[str, Shape], both: Mapping[str, Found], differences: Sequence[str]) -> None:
    wrong = [name for name, found in both.items() if tuple(own[name]) != tuple(found.shape)]
    if wrong:
        name = wrong[0]
        spelled = name if both[name].source == name else f"{name} ({both[name].source})"
        raise UserError(
            f"{source}: {len(wrong)} tensors have another shape than the model's, first {spelled}: {list(both[name].shape)} in the file, "
            f"{list(own[name])} in the model. {_advice(differences)}"
        )


def _check_depth(source: str, own: Mapping[str, Shape], found: Mapping[str, Found], differences: Sequence[str]) -> None:
    """A stack with more layers in the file than in the model would be cut without a word."""
    stacks = {match[1] for name in own if (match := re.match(r"(.+?\.)\d+\.", name))}
    for name in sorted(found.keys() - own.keys()):
        match = re.match(r"(.+?\.)\d+\.", name)
        if match and match[1] in stacks:
            raise UserError(
                f"{source}: it has more layers than the model: {name} ({found[name].source}) has no place. {_advice(differences)}"
            )


def _check_missing(source: str, missing: Sequence[str], nothing: bool, allow_missing: Sequence[str], differences: Sequence[str]) -> None:
    refused = [name for name in missing if not any(fnmatchcase(name, pattern) for pattern in allow_missing)]
    if refused:
        modules = _by_module(refused)
        listed = ", ".join(f"{module} ({len(names)})" for module, names in modules.items())
        patterns = ", ".join(f"{module}*" for module in modules)
        fix = f"To start them fresh set initialize.allow_missing: [{patterns}]."
        if nothing or differences:
            fix = f"{_advice(differences)} {fix}"
        raise UserError(f"{source} lacks {len(refused)} tensors that the model needs, first {refused[0]}: {listed}. {fix}")


def _advice(differences: Sequence[str]) -> str:
    if differences:
        return f"The file's model differs from the config: {'; '.join(differences)}."
    return "Check model.* in the config against the config of the run that wrote the file."


def _change(name: str, found: Found) -> str:
    """How a tensor differs from what the file has."""
    changes = ["renamed"] if found.source != name else []
    changes += ["transposed"] if found.transposed else []
    changes += [f"resized {list(found.resized_from)} to {list(found.shape)}"] if found.resized_from is not None else []
    return " and ".join(changes)


def _kind(why: str) -> str:
    """Copies of different tensors are one kind of thing."""
    return "copies of other tensors" if why.startswith("a copy of ") and "other values" not in why else why


def _by_module(names: Iterable[str]) -> dict[str, list[str]]:
    modules: dict[str, list[str]] = {}
    for name in names:
        modules.setdefault(name.split(".", 1)[0], []).append(name)
    return modules


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f}M" if count >= 100_000 else f"{count:,}"
