"""Names of one tensor in two state dicts: a table of prefixes that reads in both directions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class KeyTable:
    """How an official state dict and ours name the same tensors."""

    prefixes: tuple[tuple[str, str], ...]
    """(official, ours) beginnings of names. The longest that fits decides; what follows it is the same in both."""
    transposed: frozenset[str] = frozenset()
    """Our names of matrices that the official code stores the other way round."""
    copies: Mapping[str, str] = field(default_factory=dict)
    """Official names of tensors that are stored twice, to the official name that we read."""
    derived: tuple[str, ...] = ()
    """Endings of official names that hold no weights: buffers that follow from the configuration."""
    spellings: Mapping[str, str] = field(default_factory=dict)
    """Other endings that official files give a name, to the usual one: read, never written."""

    def to_ours(self, name: str) -> str | None:
        """Our name of an official tensor, or None where it has no place of its own."""
        ending = next((other for other in self.spellings if name.endswith(other)), "")
        name = name.removesuffix(ending) + self.spellings.get(ending, "")
        if name in self.copies or name.endswith(self.derived):
            return None
        return _exchange(name, self.prefixes)

    def to_official(self, name: str) -> str | None:
        """The official name of one of our tensors, or None where the official code has none."""
        return _exchange(name, [(ours, official) for official, ours in self.prefixes])


@dataclass(frozen=True)
class Conversion:
    """An official state dict under our names."""

    tensors: dict[str, Tensor]
    sources: dict[str, str]
    """Our name to the official name."""
    ignored: dict[str, str]
    """Official names without a place here, and why."""


def convert(state: Mapping[str, Tensor], table: KeyTable) -> Conversion:
    """Name an official state dict's tensors as ours; no tensor is copied, transposed ones are views."""
    tensors, sources, ignored = {}, {}, {}
    for name, tensor in state.items():
        ours = table.to_ours(name)
        if ours is None:
            why = f"a copy of {table.copies[name]}" if name in table.copies else "derived" if name.endswith(table.derived) else "unknown"
            ignored[name] = why
            continue
        tensors[ours] = tensor.T if ours in table.transposed else tensor
        sources[ours] = name
    return Conversion(tensors, sources, ignored)


def convert_back(tensors: Mapping[str, Tensor], table: KeyTable) -> dict[str, Tensor]:
    """Our state dict under official names, second copies included; derived buffers are left to the adapter.

    Raises:
        KeyError: a tensor has no official name.
    """
    official: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        theirs = table.to_official(name)
        if theirs is None:
            raise KeyError(name)
        official[theirs] = tensor.T.contiguous() if name in table.transposed else tensor
    return official | {copy: official[source] for copy, source in table.copies.items() if source in official}


def _exchange(name: str, prefixes: Iterable[tuple[str, str]]) -> str | None:
    fitting = [(old, new) for old, new in prefixes if name.startswith(old)]
    if not fitting:
        return None
    old, new = max(fitting, key=lambda pair: len(pair[0]))
    return new + name[len(old) :]
