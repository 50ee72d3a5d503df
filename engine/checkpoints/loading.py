"""Choosing a checkpoint that is good: rank 0 says which, all ranks check it together, and they take it or the one before it.

Nobody but rank 0 looks into the folder: what other machines see of it may be seconds old.
"""

import errno
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import UserError
from engine.checkpoints.layout import BEST, MANIFEST, MODEL, OPTIMIZER, STATE, by_worth, pointed
from engine.checkpoints.ranks import Patience, Ranks
from engine.checkpoints.state import TrainState, read_state
from engine.checkpoints.tensor_files import FileEntry, SavedTensors, sha256_of

logger = logging.getLogger(__name__)

TENSORS = ".safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files were found good. Tensors are read when they are asked for, by any number of ranks."""

    model: SavedTensors
    optimizer: SavedTensors
    state: TrainState
    folder: Path


@dataclass(frozen=True)
class Offer:
    """What rank 0 tells the others of a checkpoint."""

    name: str
    """Of its folder."""
    files: dict[str, FileEntry | None]
    """Every file but the manifest; None where an older version wrote no manifest."""
    state: TrainState


@dataclass
class Loader:
    """Reads the checkpoints of a run."""

    folder: Path
    ranks: Ranks
    listing: Patience
    """How long to look for a file that another rank sees."""
    bad: set[str] = field(default_factory=set)
    """Names of checkpoints found damaged; known on rank 0."""

    def latest(self) -> Checkpoint | None:
        """The best choice that can be read, or None where there is none at all; unreadable ones are named in the log.

        Raises:
            UserError: on all ranks, when there are checkpoints and none can be read, or a newer version wrote one.
        """
        return self._first_good(self._offers)

    def best(self) -> Checkpoint | None:
        """The weights that did best, or None.

        Raises:
            UserError: on all ranks, when they cannot be read.
        """
        return self._first_good(self._best_offer)

    def _offers(self) -> Iterator[Offer | str | None]:
        """Rank 0's choices in order; at the end None, or why it must not go on."""
        first = pointed(self.folder)
        if first is not None and self.listing.until(lambda: (self.folder / first / STATE).is_file() or None) is None:
            self._refuse(self.folder / first, "latest names it, and it is not there")
        names = by_worth(self.folder, first)
        for name in names:
            yield from self._offer(self.folder / name)
        if names:
            yield f"{self.folder}: none of the {len(names)} checkpoints can be read. Move the folder away to start over."
        yield None

    def _best_offer(self) -> Iterator[Offer | str | None]:
        if (self.folder / BEST / STATE).is_file():
            yield from self._offer(self.folder / BEST)
            yield f"{self.folder / BEST}: cannot be read. Move it away to go on without the weights that did best."
        yield None

    def _offer(self, folder: Path) -> Iterator[Offer | str]:
        try:
            yield read_offer(folder)
        except UserError as error:
            yield str(error)
        except Exception as error:  # damaged in whatever way; the other ranks wait for the next one
            self._refuse(folder, in_words(error))

    def _first_good(self, offers: Callable[[], Iterator[Offer | str | None]]) -> Checkpoint | None:
        offered = offers() if self.ranks.rank == 0 else None
        while True:
            offer: Offer | str | None = self.ranks.broadcast(next(offered) if offered is not None else None)
            if isinstance(offer, str):
                raise UserError(offer)
            if offer is None:
                return None
            checkpoint, reason = None, None
            try:
                checkpoint = self._check(offer)
            except Exception as error:  # whatever it is, the other ranks must hear of it
                reason = in_words(error)
            reasons: list[str | None] = self.ranks.gather(reason)
            told = [f"{f'rank {rank}: ' if len(reasons) > 1 else ''}{why}" for rank, why in enumerate(reasons) if why is not None]
            if checkpoint is not None and not told:
                return checkpoint
            self._refuse(self.folder / offer.name, "; ".join(told[:3]))

    def _check(self, offer: Offer) -> Checkpoint:
        """See that all files are there and that this rank's part of them is what was written; open the tensors.

        Raises:
            ValueError, OSError, SafetensorError: something is wrong.
        """
        folder, entries = self.folder / offer.name, sorted(offer.files.items())
        for name, entry in entries:
            self._await(folder / name, entry)
        for name, entry in entries[self.ranks.rank :: self.ranks.world]:
            _verify(folder / name, entry)
        model, optimizer = (SavedTensors(folder / name for name, _ in entries if _is_part(name, kind)) for kind in (MODEL, OPTIMIZER))
        return Checkpoint(model, optimizer, offer.state, folder)

    def _await(self, file: Path, entry: FileEntry | None) -> None:
        """Wait for a file that rank 0 sees to be seen here, in its whole length."""
        if self.listing.until(lambda: is_there(file, entry) or None) is None:
            raise ValueError(f"{file.name}: not seen here in its whole length, though rank 0 sees it; the file system's listing is stale")

    def _refuse(self, folder: Path, reason: str) -> None:
        if self.ranks.rank == 0:
            self.bad.add(folder.name)
            logger.warning("%s cannot be read (%s); trying the one before it", folder, reason)


def read_offer(folder: Path) -> Offer:
    """What a checkpoint says of itself, and whether that can be: its files are there and have their sizes.

    Raises:
        UserError: a newer version wrote it.
        OSError, ValueError, KeyError, TypeError: it is damaged.
    """
    files: dict[str, FileEntry | None] = {}
    if (folder / MANIFEST).is_file():
        manifest = json.loads((folder / MANIFEST).read_text())
        files = {str(name): FileEntry(int(entry["size"]), str(entry["sha256"])) for name, entry in manifest["files"].items()}
    else:
        logger.warning("%s: has no %s, since an older version wrote it; its files cannot be verified", folder, MANIFEST)
        files |= {name: None for name in (MODEL, OPTIMIZER) if (folder / name).is_file()}
    if not any(_is_part(name, MODEL) for name in files):
        raise ValueError("it holds no model")
    for name, entry in files.items():
        found = (folder / name).stat().st_size
        if entry is not None and found != entry.size:
            raise ValueError(f"{name}: is {found} bytes long, not {entry.size}")
    # verified before it is believed; the same file is among those that the ranks divide
    _verify(folder / STATE, files.get(STATE))
    return Offer(folder.name, files, read_state(json.loads((folder / STATE).read_text()), str(folder / STATE)))


def in_words(error: Exception) -> str:
    """What is wrong, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{Path(str(error.filename)).name}: {error.strerror}" if error.filename else error.strerror
    return str(error).split("\n", 1)[0] or type(error).__name__


def _verify(file: Path, entry: FileEntry | None) -> None:
    if entry is not None and sha256_of(file) != entry.sha256:
        raise ValueError(f"{file.name}: its checksum is not that in {MANIFEST}, so it is damaged")


def _is_part(name: str, kind: str) -> bool:
    return name.endswith(TENSORS) and name.split(".", 1)[0].split("-", 1)[0] == kind.split(".", 1)[0]


def is_there(file: Path, entry: FileEntry | None) -> bool:
    """Whether this machine sees a file in its whole length."""
    try:
        size = file.stat().st_size
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return False
        raise
    return entry is None or size == entry.size
