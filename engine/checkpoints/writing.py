"""One checkpoint written by all ranks together, without a collective: every rank's writer runs beside the training and at its own pace.

Every rank announces how much it will write; rank 0 looks whether the disk has room for all of it and gives the word. Every rank writes and
flushes its files into a hidden folder and posts what they are. When all have, rank 0 adds the manifest, moves the folder into place and
says so. A failure anywhere ends in the removal of the hidden folder, and in nothing else.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from common.files import flush, replace_file
from engine.board import Board
from engine.checkpoints.layout import (
    INDEX,
    LATEST,
    MANIFEST,
    MODEL,
    OPTIMIZER,
    PARTIAL,
    STATE,
    STEP,
    rank_file,
    remove,
    replace_folder,
)
from engine.checkpoints.ranks import Patience, Ranks
from engine.checkpoints.space import check_space
from engine.checkpoints.tensor_files import FileEntry, write_json, write_tensors

GRACE = 60.0
"""Seconds that the others wait for rank 0's word beyond the time that rank 0 waits for them."""


@dataclass(frozen=True)
class Share:
    """What one rank brings to a checkpoint."""

    name: str
    """The folder: step-00000500, or best."""
    step: int
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    state: dict[str, Any]
    """Rank 0's is written."""

    @property
    def size(self) -> int:
        """Bytes of its tensors."""
        return sum(tensor.nbytes for part in (self.model, self.optimizer) for tensor in part.values())


@dataclass(frozen=True)
class Outcome:
    """How a write ended."""

    name: str
    step: int
    problem: str | None
    """None: the checkpoint is complete."""
    size: int = 0
    """Bytes of the tensors of all ranks; 0 where it did not come to writing, or on other ranks than 0."""
    seconds: float = 0.0


class WriteFailed(Exception):
    """A checkpoint that will not be; the text says which rank found what."""


class Notices:
    """The notices of one save. Their keys are those of every save, so that a long run does not fill the board; a number in each tells
    which save it is of."""

    def __init__(self, board: Board, number: int, ranks: Ranks, patience: Patience) -> None:
        self.board = board
        self.number = number
        self.ranks = ranks
        self.patience = patience

    def post(self, subject: str, content: Any) -> None:
        """Put up this rank's notice."""
        self.board.post(f"checkpoint/{subject}/{self.ranks.rank}", json.dumps({"save": self.number, "content": content}))

    def read(self, subject: str, rank: int) -> Any | None:
        """A rank's notice of this save, or None."""
        text = self.board.read(f"checkpoint/{subject}/{rank}")
        notice = json.loads(text) if text is not None else {"save": None}
        return notice["content"] if notice["save"] == self.number else None

    def collect(self, subject: str) -> list[Any]:
        """The notices of all ranks.

        Raises:
            WriteFailed: some rank's does not come.
        """
        found: dict[int, Any] = {}

        def all_there() -> bool | None:
            for rank in range(self.ranks.world):
                if rank not in found and (notice := self.read(subject, rank)) is not None:
                    found[rank] = notice
            return True if len(found) == self.ranks.world else None

        if self.patience.until(all_there) is None:
            silent = ", ".join(str(rank) for rank in range(self.ranks.world) if rank not in found)
            raise WriteFailed(f"no answer of rank {silent} within {self.patience.seconds:g} s")
        return [found[rank] for rank in range(self.ranks.world)]

    def word(self, *awaited: str) -> None:
        """Wait for rank 0 to say one of these, or that the write has failed.

        Raises:
            WriteFailed: it has, or rank 0 says nothing.
        """

        def said() -> dict[str, str] | None:
            notice = self.read("word", 0)
            return notice if notice is not None and notice["say"] in (*awaited, "failed") else None

        notice = Patience(self.patience.seconds + GRACE, self.patience.clock, self.patience.sleep).until(said)
        if notice is None:
            raise WriteFailed(f"no word of rank 0 within {self.patience.seconds + GRACE:g} s")
        if notice["say"] == "failed":
            raise WriteFailed(notice["reason"])

    def say(self, what: str, reason: str = "") -> None:
        """Rank 0's word to all: write, done or failed."""
        self.post("word", {"say": what, "reason": reason})


def write_checkpoint(folder: Path, share: Share, notices: Notices, spare: int, listing: Patience) -> Outcome:
    """Take part in writing a checkpoint; every rank calls it, in any thread.

    Args:
        folder: of all checkpoints.
        share: of this rank.
        notices: of this save.
        spare: bytes that must be left on the disk.
        listing: how long rank 0 looks for the files of other ranks on a slow shared file system.
    """
    begun = time.perf_counter()
    partial = folder / f".{share.name}.{notices.number}{PARTIAL}"
    size = 0
    try:
        if notices.ranks.rank == 0:
            size = _lead(folder, partial, share, notices, spare, listing)
        else:
            _follow(partial, share, notices)
    except Exception as error:  # whatever it is, the run goes on and the other ranks must hear of it
        problem = _in_words(error)
        if notices.ranks.rank == 0:
            _say_failed(notices, problem)
        remove(partial)
        return Outcome(share.name, share.step, problem)
    return Outcome(share.name, share.step, None, size, time.perf_counter() - begun)


def _lead(folder: Path, partial: Path, share: Share, notices: Notices, spare: int, listing: Patience) -> int:
    """Rank 0's part; returns the bytes of all ranks."""
    notices.post("size", share.size)
    size = sum(notices.collect("size"))
    if problem := check_space(folder, size, spare):
        raise WriteFailed(problem)
    folder.mkdir(parents=True, exist_ok=True)
    notices.say("write")
    notices.post("written", _write_share(partial, share, notices.ranks))
    parts = notices.collect("written")
    failures = [f"rank {rank}: {part['failed']}" for rank, part in enumerate(parts) if "failed" in part]
    if failures:
        raise WriteFailed("; ".join(failures))
    _await_files(partial, parts, listing)
    _finish(partial, parts, share, notices.ranks.world)
    replace_folder(partial, folder / share.name)
    if STEP.fullmatch(share.name):
        replace_file(folder / LATEST, share.name)
        flush(folder)
    notices.say("done")
    return size


def _follow(partial: Path, share: Share, notices: Notices) -> None:
    """The part of the other ranks."""
    notices.post("size", share.size)
    notices.word("write")
    notices.post("written", _write_share(partial, share, notices.ranks))
    notices.word("done")


def _write_share(partial: Path, share: Share, ranks: Ranks) -> dict[str, Any]:
    """Write this rank's files; returns what the manifest and the index say of them, or the reason why there are none."""
    try:
        partial.mkdir(exist_ok=True)
        files: dict[str, FileEntry] = {}
        for name, tensors in ((MODEL, share.model), (OPTIMIZER, share.optimizer)):
            if tensors or name == MODEL:
                file = rank_file(name, ranks.rank, ranks.world)
                files[file] = write_tensors(partial / file, tensors)
        flush(partial)
    except Exception as error:
        return {"failed": _in_words(error)}
    return {
        "files": {name: asdict(entry) for name, entry in files.items()},
        "model": {name: tensor.nbytes for name, tensor in share.model.items()},
        "optimizer": list(share.optimizer),
    }


def _await_files(partial: Path, parts: list[dict[str, Any]], listing: Patience) -> None:
    """Make sure that rank 0 sees what the others wrote: a folder on a local disk of each machine would make no checkpoint."""
    for rank, part in enumerate(parts):
        for name in part["files"]:
            if listing.until(lambda file=partial / name: file.is_file() or None) is None:
                raise WriteFailed(f"rank 0 does not see what rank {rank} wrote, {name}; is the folder on a disk that all machines share?")


def _finish(partial: Path, parts: list[dict[str, Any]], share: Share, world: int) -> None:
    """Write what stands once in a checkpoint; the manifest, which names all else, comes last."""
    files: dict[str, FileEntry] = {name: FileEntry(**entry) for part in parts for name, entry in part["files"].items()}
    for kind in ("model", "optimizer"):
        names = [name for part in parts for name in part[kind]]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise WriteFailed(f"several ranks bring {twice}; their shares must not overlap")
    if world > 1:
        where = {name: rank_file(MODEL, rank, world) for rank, part in enumerate(parts) for name in part["model"]}
        total = sum(size for part in parts for size in part["model"].values())
        files[INDEX] = write_json(partial / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))})
    files[STATE] = write_json(partial / STATE, share.state)
    listed = {name: asdict(entry) for name, entry in sorted(files.items())}
    write_json(partial / MANIFEST, {"step": share.step, "world": world, "files": listed})
    flush(partial)


def _say_failed(notices: Notices, problem: str) -> None:
    try:
        notices.say("failed", problem)
    except Exception:  # the board is gone too; the others give up when their time is over
        return


def _in_words(error: Exception) -> str:
    if isinstance(error, WriteFailed):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}".split("\n", 1)[0]
