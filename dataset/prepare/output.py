"""A prepared data set's folder: complete with its meta.json, or as it was before."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from common.errors import UserError

UNFINISHED = ".unfinished"
META = "meta.json"


class PreparedFolder:
    """Files are written into a hidden sub-folder and moved into place when all are there; meta.json comes last.

    Use it as a context manager, which gives the sub-folder, and call `finish` inside. Without `finish` (an error, a kill) the folder
    stays as it was.

    Args:
        out: the folder.
        entries: names of the files and folders that the data set may have; what else the folder holds is left alone.
    """

    def __init__(self, out: Path, entries: Sequence[str]) -> None:
        self.out = out
        self.entries = tuple(entries)
        self.working = out / UNFINISHED

    def __enter__(self) -> Path:
        shutil.rmtree(self.working, ignore_errors=True)  # of a killed run
        try:
            self.working.mkdir(parents=True)
        except OSError as error:
            raise UserError(f"{self.out}: cannot be written ({error.strerror}); name another folder") from error
        return self.working

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        shutil.rmtree(self.working, ignore_errors=True)

    def completed(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """meta.json, if the folder holds the outcome of this very request with all its files whole; else None."""
        meta = self._meta()
        if meta is None or meta.get("request") != request:
            return None
        files = meta.get("sha256", {})
        whole = files == _manifest(self.out, self.entries)
        return meta if whole else None

    def check_free(self, overwrite: bool) -> None:
        """Refuse to replace what another request, or someone else, wrote.

        Raises:
            UserError: the folder holds files of these names, and `overwrite` is not set.
        """
        present = [name for name in (*self.entries, META) if (self.out / name).exists()]
        if present and not overwrite:
            raise UserError(f"{self.out}: holds {present[0]} of another or a damaged data set; choose another --out, or add --overwrite")

    def finish(self, meta: dict[str, Any]) -> dict[str, Any]:
        """Move everything into place; returns `meta` with the SHA-256 of every file, as written to meta.json."""
        meta = meta | {"sha256": _manifest(self.working, self.entries)}
        write_json(self.working / META, meta, indent=2)
        (self.out / META).unlink(missing_ok=True)  # first to go and last to come: no moment in between looks complete
        for name in self.entries:
            old, new = self.out / name, self.working / name
            if old.is_dir():
                shutil.rmtree(old)
            old.unlink(missing_ok=True)
            if new.exists():
                os.replace(new, old)
        os.replace(self.working / META, self.out / META)
        return meta

    def _meta(self) -> dict[str, Any] | None:
        try:
            meta = json.loads((self.out / META).read_bytes())
        except (OSError, ValueError):
            return None
        return meta if isinstance(meta, dict) else None


def write_json(path: Path, content: Any, indent: int | None = None) -> None:
    """Write a JSON file, in UTF-8."""
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def is_written(file: Path, wanted: dict[str, Any], sha256: Callable[[], str]) -> bool:
    """Whether a file like meta.json says that what is wanted was written, and the hash of what is there is the one it names."""
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
        return all(meta.get(key) == value for key, value in wanted.items()) and meta.get("sha256") == sha256()
    except (OSError, ValueError, AttributeError):
        return False


def _manifest(folder: Path, entries: Sequence[str]) -> dict[str, str]:
    """Relative path -> SHA-256 of every file of the entries."""
    files = [path for name in entries for path in ([folder / name] if (folder / name).is_file() else sorted((folder / name).rglob("*")))]
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files if path.is_file()}
