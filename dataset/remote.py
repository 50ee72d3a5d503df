"""Files behind a URL, through fsspec: found, measured and fetched; whatever goes wrong there is an OSError, as with local files.

How a file system is reached (keys, endpoints, proxies) is fsspec's own configuration: environment variables such as
`FSSPEC_S3_ENDPOINT_URL` and files in ~/.config/fsspec.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from common.errors import UserError

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
HTTP = ("http", "https")
PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "http": "aiohttp",
    "https": "aiohttp",
    "hdfs": "pyarrow",
    "abfs": "adlfs",
    "az": "adlfs",
    "sftp": "paramiko",
    "ssh": "paramiko",
    "hf": "huggingface_hub",
}
"""What to install for a protocol."""
VERSION_KEYS = ("ETag", "etag", "md5Hash", "md5", "generation", "LastModified", "last_modified", "updated", "mtime", "modified", "created")
"""Under which of these keys a file system tells one version of a file from the next, the surest first."""
CONNECT_SECONDS, SILENT_SECONDS = 30, 60
"""An HTTP server that lets wait so long for a connection, or for the next bytes, is gone."""


@dataclass(frozen=True)
class RemoteFile:
    """A file behind a URL, as it was when it was last asked for.

    Attributes:
        url: with the protocol.
        size: in bytes; None before `measured`, and where the server does not say.
        version: changes when the file does; empty where the file system has nothing of the kind.
    """

    url: str
    size: int | None = None
    version: str = ""

    @property
    def name(self) -> str:
        """The last part of the path, without the query of a signed URL."""
        return PurePosixPath(self._path).name

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot."""
        return PurePosixPath(self._path).suffix

    @property
    def _path(self) -> str:
        return urlsplit(self.url).path if protocol_of(self.url) in HTTP else self.url

    def beside(self, ending: str) -> RemoteFile | None:
        """The file with this name and an ending more; None behind a signed URL, whose signature holds for one file alone."""
        return None if protocol_of(self.url) in HTTP and urlsplit(self.url).query else RemoteFile(self.url + ending)

    def __str__(self) -> str:
        """The URL without what may be secret: signatures and passwords."""
        url = self.url.split("?", 1)[0] if protocol_of(self.url) in HTTP else self.url
        return re.sub(r"://[^/@]*@", "://", url)


DataFile = Path | RemoteFile
"""A file of a data set; both kinds have `name` and `suffix`, and `str` names them in messages."""


def protocol_of(pattern: str) -> str | None:
    """The protocol of a URL; None for a local path (file:// is one)."""
    found = URL.match(pattern)
    return found.group(1).lower() if found and found.group(1).lower() not in ("file", "local") else None


def reason(error: OSError) -> str:
    """Why an operation failed, in words."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return error.strerror or str(error) or type(error).__name__


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it. Asked for each time anew: fsspec keeps one of each for a process, and a forked
    worker must not go on with its parent's.

    Raises:
        UserError: an unknown protocol, or its package is not installed.
    """
    from fsspec.core import url_to_fs

    protocol = protocol_of(url) or ""
    try:
        return url_to_fs(url, **_options(protocol))
    except ImportError as error:
        package = PACKAGES.get(protocol)
        how = f"needs the package {package}: pip install {package}" if package else f"needs another package: {error}"
        raise UserError(f"{RemoteFile(url)}: reading {protocol}:// {how}") from error
    except ValueError as error:
        raise UserError(f"{RemoteFile(url)}: {protocol}:// cannot be read ({error})") from error


def _options(protocol: str) -> dict[str, Any]:
    """Arguments that a protocol's file system is made with."""
    if protocol not in HTTP:
        return {}
    import aiohttp  # pyright: ignore[reportMissingImports]

    # the library's own limit is on the whole transfer, however large the file is
    return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)}}


@contextmanager
def _errors_as_oserror() -> Iterator[None]:
    """File systems raise errors of the libraries below them, most of which are no OSError."""
    try:
        yield
    except (OSError, UserError):
        raise
    except Exception as error:
        refused = getattr(error, "status", None) in (401, 403)
        text = _without_secrets(str(error)) or type(error).__name__
        raise (PermissionError(errno.EACCES, text) if refused else OSError(errno.EIO, text)) from error


def _without_secrets(text: str) -> str:
    """An error's text without what URLs in it carry: signatures behind a question mark, and passwords."""
    return re.sub(r"(\w+://)[^/@\s'\"]*@", r"\1", re.sub(r"(\w+://[^\s'\"?]*)\?[^\s'\"]*", r"\1", text))


def measured(file: RemoteFile) -> RemoteFile:
    """The file with its present size and version.

    Raises:
        OSError: it does not exist, or the server fails.
    """
    system, path = file_system(file.url)
    with _errors_as_oserror():
        system.invalidate_cache()
        return _described(file.url, system.info(path))


def _described(url: str, info: dict[str, Any]) -> RemoteFile:
    version = next((str(info[key]) for key in VERSION_KEYS if info.get(key)), "")
    size = info.get("size")
    return RemoteFile(url, None if size is None else int(size), version)


def find(pattern: str) -> list[RemoteFile]:
    """The files that a URL with wildcards means, or those of a folder (a URL that ends in /), sorted; a plain URL is taken as it is.

    Raises:
        OSError: the server fails.
    """
    literal = pattern.split("?", 1)[0] if protocol_of(pattern) in HTTP else pattern
    wild = any(mark in literal for mark in ("*[" if protocol_of(pattern) in HTTP else "*?["))
    if not wild and not pattern.endswith("/"):
        return [RemoteFile(pattern)]
    system, path = file_system(pattern)
    with _errors_as_oserror():
        found = system.glob(path, detail=True) if wild else {info["name"]: info for info in system.ls(path, detail=True)}
        files = [_described(system.unstrip_protocol(name), info) for name, info in found.items() if info.get("type") != "directory"]
    return sorted(files, key=lambda file: file.url)


def read_small(file: RemoteFile) -> bytes | None:
    """The content of a file that may not exist; None where it does not (or where the server does not tell a missing file from a secret).

    Raises:
        OSError: the server fails.
    """
    system, path = file_system(file.url)
    try:
        with _errors_as_oserror():
            return system.cat_file(path)
    except (FileNotFoundError, PermissionError):
        return None


def download(file: RemoteFile, target: Path) -> None:
    """Copy a file to a local path.

    Raises:
        OSError: anything went wrong; the target may hold a part.
    """
    system, path = file_system(file.url)
    with _errors_as_oserror():
        system.get_file(path, str(target))
