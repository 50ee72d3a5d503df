"""Parallel text, as two files with a sentence a line or as one with columns, into shards of the `parallel_text` stream.

    OUT/shards/parallel-*.tar    {source, target[, languages: [source's, target's]]} a sample
    OUT/meta.json                request, counts, SHA-256 of each file; written last

Files may be packed with gzip. Pairs with an empty side, and pairs whose sides are equal (nothing was translated), are left out.
"""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from common.errors import UserError
from dataset.prepare.output import PreparedFolder, sha256_of
from dataset.shards import ShardWriter

logger = logging.getLogger(__name__)

VERSION = 1  # raise it when the same input comes to give other output
ENTRIES = ("shards",)
PAIRS_A_SHARD = 20_000
TOLD_EVERY = 1000

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ParallelRequest:
    """What is asked of `prepare_parallel`: either source and target, or tsv."""

    out: Path
    source: Path | None = None
    target: Path | None = None
    """A sentence a line, line by line the same meaning as `source`."""
    tsv: Path | None = None
    """Columns between tabs."""
    columns: tuple[int, int] = (1, 2)
    """Of source and target in `tsv`, from 1."""
    score: tuple[int, float] | None = None
    """A column of `tsv` with a number, and the least that a pair needs to be taken. WikiMatrix has it in column 1 and advises 1.04."""
    languages: tuple[str, str] | None = None
    """Of source and target, for the record."""
    max_samples: int = PAIRS_A_SHARD
    max_bad: float = 0.05
    """Share of lines that may be without a pair."""
    overwrite: bool = False


@dataclass
class Counts:
    """What became of the lines."""

    pairs: int = 0
    below_score: int = 0
    untranslated: int = 0
    bad: int = 0
    """Lines without a pair."""
    example: str = field(default="", repr=False)
    """What is wrong with the first of them."""

    @property
    def lines(self) -> int:
        """All that were read."""
        return self.pairs + self.below_score + self.untranslated + self.bad

    def told(self) -> dict[str, int]:
        """As meta.json has them."""
        return {"pairs": self.pairs, "below_score": self.below_score, "untranslated": self.untranslated, "without_a_pair": self.bad}


def prepare_parallel(request: ParallelRequest, progress: Progress | None = None) -> dict[str, Any]:
    """Write the shards, or leave them where the same request wrote them.

    Args:
        request: see there.
        progress: called with bytes read and bytes in all.

    Returns:
        meta.json.

    Raises:
        UserError: files are missing or of different lengths, too many lines hold no pair, or OUT holds something else.
    """
    files = _inputs(request)
    described = {file.name: sha256_of(file) for file in files}
    settings = {name: getattr(request, name) for name in ("columns", "score", "languages", "max_samples")}
    asked = {"data_set": "parallel", "version": VERSION, "files": described}
    asked |= {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
    folder = PreparedFolder(request.out, ENTRIES)
    if (done := folder.completed(asked)) is not None:
        logger.info("%s: complete already", request.out)
        return done
    folder.check_free(request.overwrite)
    counts = Counts()
    with folder as working:
        with ShardWriter(working / "shards", "parallel", request.max_samples) as writer:
            for source, target in _pairs(request, counts, progress):
                annotation: dict[str, Any] = {"source": source, "target": target}
                writer.write(f"{counts.pairs:09d}", None, annotation | ({"languages": request.languages} if request.languages else {}))
                counts.pairs += 1
        if counts.bad > request.max_bad * counts.lines:
            raise UserError(
                f"{files[0]}: {counts.bad:,} of {counts.lines:,} lines hold no pair, more than max_bad={request.max_bad:g}. "
                f"The first: {counts.example}"
            )
        if counts.pairs == 0:
            raise UserError(f"{files[0]}: holds no pair of sentences")
        return folder.finish({"request": asked, "counts": counts.told()})


def _inputs(request: ParallelRequest) -> list[Path]:
    """The files that are read."""
    if (request.tsv is None) == (request.source is None) or (request.source is None) != (request.target is None):
        raise UserError("parallel: give --source and --target, a sentence a line in each, or --tsv with both in columns")
    files = [file for file in (request.tsv, request.source, request.target) if file is not None]
    for file in files:
        if not file.is_file():
            raise UserError(f"{file}: no such file")
    return files


def _pairs(request: ParallelRequest, counts: Counts, progress: Progress | None) -> Iterator[tuple[str, str]]:
    """The pairs that are good, in order; the others are counted."""
    for place, pair, score in _lines(request, progress):
        if pair is None or not all(pair):
            counts.bad += 1
            counts.example = counts.example or place
        elif request.score is not None and (score is None or score < request.score[1]):
            counts.below_score += 1
        elif pair[0] == pair[1]:
            counts.untranslated += 1
        else:
            yield pair


def _lines(request: ParallelRequest, progress: Progress | None) -> Iterator[tuple[str, tuple[str, str] | None, float | None]]:
    """Of each line where it is, its two texts if it has both, and its score."""
    if request.tsv is not None:
        for number, line in enumerate(_read(request.tsv, progress), start=1):
            cells = line.split("\t")
            texts = [cells[column - 1].strip() if column <= len(cells) else "" for column in request.columns]
            place = f"line {number} has {len(cells)} columns, not both of {request.columns[0]} and {request.columns[1]} with words"
            yield place, (texts[0], texts[1]), None if request.score is None else _number(cells, request.score[0])
        return
    assert request.source is not None and request.target is not None, "_inputs has looked"
    both = zip_longest(_read(request.source, progress), _read(request.target, None))
    for number, (source, target) in enumerate(both, start=1):
        if source is None or target is None:
            shorter, longer = (request.source, request.target) if source is None else (request.target, request.source)
            raise UserError(f"{shorter}: ends after {number - 1:,} lines, {longer} goes on; their lines must belong together")
        yield f"line {number} is empty in {'both' if not source and not target else 'one file'}", (source.strip(), target.strip()), None


def _number(cells: list[str], column: int) -> float | None:
    try:
        return float(cells[column - 1])
    except (IndexError, ValueError):
        return None


def _read(file: Path, progress: Progress | None) -> Iterator[str]:
    """Lines of a text file, packed or not, without their ends."""
    size = file.stat().st_size
    try:
        with file.open("rb") as raw:
            unpacked: Iterable[bytes] = gzip.GzipFile(fileobj=raw) if file.suffix == ".gz" else raw
            for number, line in enumerate(unpacked, start=1):
                if progress is not None and number % TOLD_EVERY == 0:
                    progress(min(raw.tell(), size - 1), size)
                yield line.decode().rstrip("\r\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read as UTF-8 text ({error})") from error
    if progress is not None and size:
        progress(size, size)
